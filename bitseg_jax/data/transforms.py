"""Resizes, pads and augments photos and id maps on the host.

Images are uint8 [H, W, 3], and id maps are int32 [H, W] with -1 where nothing
is labelled. No function changes its arguments.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from bitseg_jax import IGNORE_ID

cv2.setNumThreads(0)  # the readers are threads already

# The colour outside the photo: ImageNet's mean, nearly 0 once normalised.
PAD_COLOR = (124, 116, 104)

AUGMENTATIONS = 'full', 'flip', 'none'

# (top, left, bottom, right), relative: 0 and 1 are the edges of the photo.
RelativeBox = tuple[float, float, float, float]
WHOLE = (0.0, 0.0, 1.0, 1.0)


def fit_longest_side(
  height: float, width: float, longest_side: int
) -> tuple[int, int]:
  """Returns (height, width) of a picture scaled to a longest side in pixels."""
  scale = longest_side / max(height, width)
  return max(1, round(height * scale)), max(1, round(width * scale))


def random_box(
  rng: np.random.Generator, scale: Sequence[float], aspect: float
) -> RelativeBox:
  """Draws the box of a photo to train on: random resized crop, scale jitter.

  Along each axis the box lies within the photo or encloses it. Its area is in
  the range `scale`, as a share of the photo's, and its aspect ratio is
  multiplied or divided by at most `aspect`.
  """
  if tuple(scale) == (1, 1) and aspect == 1:
    return WHOLE
  area, ratio = rng.uniform(*scale), aspect ** rng.uniform(-1, 1)
  height, width = (area / ratio) ** 0.5, (area * ratio) ** 0.5
  top, left = (rng.uniform(*sorted((0, 1 - n))) for n in (height, width))
  return top, left, top + height, left + width


def resize_image(
  image: np.ndarray, size: tuple[int, int], box: RelativeBox = WHOLE
) -> np.ndarray:
  """Resizes a photo, or a box of it; PAD_COLOR is beyond it."""
  if image.shape[:2] == tuple(size) and box == WHOLE:
    return image
  (top, bottom), rows = _inside(image.shape[0], size[0], *box[::2])
  (left, right), columns = _inside(image.shape[1], size[1], *box[1::2])
  height, width = size[0] - sum(rows), size[1] - sum(columns)
  if not height or not width:
    return np.full((*size, 3), PAD_COLOR, np.uint8)
  # Pillow's BOX filter averages areas; bilinear is smoother for enlarging.
  shrinks = bottom - top >= height and right - left >= width
  kind = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
  part = left, top, right, bottom
  photo = Image.fromarray(image).resize((width, height), kind, part)
  return _pad(np.asarray(photo), (*rows, *columns), PAD_COLOR)


def _pad(values, borders, value):
  """Adds lines at the top, bottom, left and right, much faster than numpy."""
  return cv2.copyMakeBorder(values, *borders, cv2.BORDER_CONSTANT, value=value)


def _inside(length, count, low, high):
  """The range of pixels that lines cover, and how many lie before and after."""
  centers = low + (np.arange(count) + 0.5) * (high - low) / count
  first, last = np.searchsorted(centers, (0, 1)).tolist()
  start, stop = (
    length * (low + line * (high - low) / count) for line in (first, last)
  )
  return (max(start, 0), min(stop, length)), (first, count - last)


def resize_ids(
  id_map: np.ndarray, size: tuple[int, int], box: RelativeBox = WHOLE
) -> np.ndarray:
  """Resizes an id map, or a box of it, to the nearest; IGNORE_ID beyond it."""
  # Maps pixel centres to pixel centres, like Pillow's NEAREST.
  resized = np.asarray(id_map, np.int32)
  for axis, (low, high) in enumerate(zip(box[:2], box[2:], strict=True)):
    length, count = id_map.shape[axis], size[axis]
    lines = np.arange(count) + 0.5
    lines = lines * ((high - low) * length) / count + low * length
    resized = resized.take(lines.astype(int), axis, mode='clip')
    outside = (lines < 0) | (lines >= length)
    resized[(slice(None),) * axis + (outside,)] = IGNORE_ID
  return resized


def pad_to_square(
  image: np.ndarray, id_map: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
  """Pads with the mean colour and IGNORE_ID, at bottom and right."""
  borders = 0, side - id_map.shape[0], 0, side - id_map.shape[1]
  return _pad(image, borders, PAD_COLOR), _pad(id_map, borders, IGNORE_ID)


def augment(
  image: np.ndarray, id_map: np.ndarray, rng: np.random.Generator, kind: str
) -> tuple[np.ndarray, np.ndarray]:
  """Augments a photo and its id map at random.

  In the order and with the probabilities of the official code: horizontal flip,
  0.5; gamma 0.8-1.2, 0.3; brightness and contrast +-0.2, 0.3; hue, saturation
  and value +-20/30/20, 0.3; RGB shift +-20, 0.1; rotation +-20 degrees, 0.3.

  The corners that a rotation uncovers have the mean colour and IGNORE_ID. The
  kind is 'full', 'flip' (only the flip) or 'none'.
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
    shift = rng.uniform(-20, 20, 3).round()
    image = _lookup(image, 255 * _RAMP + shift[:, None])
  if rng.random() < 0.3:
    image, id_map = rotate(image, id_map, rng.uniform(-20, 20))
  return image, id_map


_RAMP = np.arange(256) / 255


def _lookup(image, tables):
  """Looks up each value in a table [256], or in its band's of [3, 256]."""
  tables = np.clip(np.round(tables), 0, 255).astype(np.uint8)
  return cv2.LUT(np.ascontiguousarray(image), tables.T[None])


def _shift_hsv(image, shift):
  tables = np.arange(256) + np.round(shift[:, None])
  tables[0] %= 180
  hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
  return cv2.cvtColor(_lookup(hsv, tables), cv2.COLOR_HSV2RGB)


def rotate(
  image: np.ndarray, id_map: np.ndarray, degrees: float
) -> tuple[np.ndarray, np.ndarray]:
  """Rotates photo (bilinear) and id map (nearest) about the centre."""
  height, width = id_map.shape
  size, center = (width, height), ((width - 1) / 2, (height - 1) / 2)
  matrix = cv2.getRotationMatrix2D(center, degrees, 1)
  turned = cv2.warpAffine(image, matrix, size, borderValue=PAD_COLOR)
  # OpenCV cannot rotate int32, and float32 holds every id that occurs.
  nearest = {'flags': cv2.INTER_NEAREST, 'borderValue': IGNORE_ID}
  ids = cv2.warpAffine(id_map.astype(np.float32), matrix, size, **nearest)
  return turned, ids.astype(np.int32)


def every_nth(id_map: np.ndarray, side: int) -> np.ndarray:
  """Takes the pixels in the middle of squares, so that `side` remain."""
  every = len(id_map) // (side or len(id_map))
  return id_map[every // 2 :: every, every // 2 :: every]


def evaluation_example(
  record: dict[str, Any], image_size: int, code_size: int = 0
) -> dict[str, Any]:
  """Turns a record into an evaluation example: all annotators, nothing random.

  Returns:
    {'name': str, 'image': uint8 [S, S, 3], 'size': int32 [2], 'id_maps': list
    of int32 [G, G], -1 where unlabelled or padding}, where S and G are
    image_size and code_size; size is that of the photo within the square of G.
  """
  size = fit_longest_side(*record['id_maps'][0].shape, image_size)
  photo = resize_image(record['image'], size)
  id_maps = []
  for id_map in record['id_maps']:
    id_map = resize_ids(id_map, size)
    image, id_map = pad_to_square(photo, id_map, image_size)
    id_maps.append(every_nth(id_map, code_size))
  of_codes = [-(-n * (code_size or image_size) // image_size) for n in size]
  size = np.array(of_codes, np.int32)
  example = {'name': record['name'], 'image': image, 'size': size}
  return {**example, 'id_maps': id_maps}
