"""From a stored record to a training example: numpy and Pillow, host.

Every function returns new arrays. Images are uint8 [H, W, 3]; id maps int32
[H, W] with -1 where nothing is labelled.
"""

import numpy as np
from PIL import Image

from bitseg_jax import IGNORE_ID

# ImageNet statistics, of images scaled to [0, 1].
IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)
# What lies outside the photo: nearly 0 once normalised.
PAD_COLOR = tuple(int(c) for c in np.round(IMAGE_MEAN * 255))

AUGMENTATIONS = ('full', 'flip', 'none')


def normalize_image(image):
  """Scales uint8 [..., 3] (numpy or jax) to float32 by ImageNet mean/std."""
  return (image.astype(np.float32) / 255 - IMAGE_MEAN) / IMAGE_STD


def fit_longest_side(
  height: int, width: int, longest_side: int
) -> tuple[int, int]:
  """Size (height, width) of a picture scaled to a longest side."""
  scale = longest_side / max(height, width)
  return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes a photo to (height, width) by area averaging."""
  if image.shape[:2] == tuple(size):
    return image
  # Pillow's BOX filter is the area average; enlarging, bilinear is smoother.
  shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
  method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
  return np.asarray(Image.fromarray(image).resize(size[::-1], method))


def resize_ids(id_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes an id map to (height, width) by nearest neighbour."""
  # Pixel centre to pixel centre, as Pillow's NEAREST.
  rows = (np.arange(size[0]) + 0.5) * id_map.shape[0] / size[0]
  columns = (np.arange(size[1]) + 0.5) * id_map.shape[1] / size[1]
  return id_map[rows.astype(int)[:, None], columns.astype(int)]


def pad_to_square(
  image: np.ndarray, id_map: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
  """Pads bottom and right to side x side: mean colour, and IGNORE_ID."""
  height, width = id_map.shape
  padded_image = np.empty((side, side, 3), np.uint8)
  padded_image[:] = PAD_COLOR
  padded_image[:height, :width] = image
  padded_ids = np.full((side, side), IGNORE_ID, np.int32)
  padded_ids[:height, :width] = id_map
  return padded_image, padded_ids


def augment(
  image: np.ndarray, id_map: np.ndarray, rng: np.random.Generator, kind: str
) -> tuple[np.ndarray, np.ndarray]:
  """Random changes that keep the segmentation right (impl, in this order).

  Horizontal flip 0.5; gamma 0.8-1.2, 0.3; brightness and contrast +-0.2, 0.3;
  hue, saturation, value +-20/30/20, 0.3; RGB shift +-20, 0.1; rotation +-20
  degrees, 0.3.

  Args:
    image: uint8 [H, W, 3].
    id_map: int32 [H, W].
    rng: source of randomness; it alone decides.
    kind: 'full', 'flip' (the flip alone) or 'none'.

  Returns:
    (image, id_map) of the same shapes; what a rotation uncovers has the mean
    colour and IGNORE_ID.
  """
  if kind == 'none':
    return image, id_map
  if rng.random() < 0.5:
    image, id_map = image[:, ::-1], id_map[:, ::-1]
  if kind == 'flip':
    return image, id_map
  if rng.random() < 0.3:
    image = _lookup(image, 255 * _RAMP ** rng.uniform(0.8, 1.2))
  if rng.random() < 0.3:
    brightness, contrast = rng.uniform(-0.2, 0.2, 2)
    image = _lookup(image, 255 * (_RAMP * (1 + contrast) + brightness))
  if rng.random() < 0.3:
    image = _shift_hsv(image, rng.uniform(-1, 1, 3) * (20, 30, 20))
  if rng.random() < 0.1:
    image = np.clip(image + rng.uniform(-20, 20, 3).round(), 0, 255)
    image = image.astype(np.uint8)
  if rng.random() < 0.3:
    image, id_map = rotate(image, id_map, rng.uniform(-20, 20))
  return image, id_map


_RAMP = np.arange(256) / 255


def _lookup(image, table):
  return np.clip(np.round(table), 0, 255).astype(np.uint8)[image]


def _shift_hsv(image, shift):
  """Adds to hue (of 180 steps a turn, wrapping), saturation and value."""
  hsv = np.array(Image.fromarray(np.ascontiguousarray(image)).convert('HSV'))
  hue = hsv[..., 0] + np.int16(round(shift[0] * 256 / 180))
  rest = np.clip(hsv[..., 1:] + np.round(shift[1:]), 0, 255)
  hsv = np.concatenate([(hue % 256)[..., None], rest], axis=-1)
  return np.asarray(Image.fromarray(hsv.astype(np.uint8), 'HSV').convert('RGB'))


def rotate(
  image: np.ndarray, id_map: np.ndarray, degrees: float
) -> tuple[np.ndarray, np.ndarray]:
  """Turns photo (bilinear) and id map (nearest) about the centre."""
  turned = Image.fromarray(np.ascontiguousarray(image)).rotate(
    degrees, Image.Resampling.BILINEAR, fillcolor=PAD_COLOR
  )
  ids = Image.fromarray(np.ascontiguousarray(id_map)).rotate(
    degrees, Image.Resampling.NEAREST, fillcolor=IGNORE_ID
  )
  return np.asarray(turned), np.asarray(ids)
