"""Reads photos and labels from disk; defines what a dataset family provides.

A family is one module with one function, `open_source(source_dir) -> Source`.
"""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

SPLITS = ('train', 'val', 'test')
SPLIT_SEED = 0
_EXIF_ORIENTATION = 0x0112
_ID_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'RGB')


class SourceError(ValueError):
  """A fault in the given data: one line for the user, no traceback."""


class Item(NamedTuple):
  """Paths of a photo and its annotations; small, so that millions fit."""

  name: str  # unique over all splits
  photo: Path
  labels: tuple[Any, ...]  # what the family's `load_id_maps` understands

  def label(self, annotator: int) -> Any:
    """Returns the label of one annotator, or the only one, shared by all."""
    return self.labels[min(annotator, len(self.labels) - 1)]


class Source(NamedTuple):
  """A dataset as it is on disk before it is prepared."""

  splits: dict[str, list[Item]]
  load_id_maps: Callable[[Item], list[np.ndarray]]  # int32 [H, W], -1 = none
  problems: list[str]  # items left out when listing, one line each
  notes: list[str]  # what the user should know, one line each
  shrinks_photos: bool = False  # photos may be larger than their annotation


def open_image(path: Path, high_byte: bool = False) -> Image.Image:
  """Reads and decodes a whole image file.

  Args:
    path: the file.
    high_byte: for colours of 16 bits per channel, take the higher 8 bits.

  Returns:
    The decoded image, not yet rotated as EXIF says.

  Raises:
    SourceError: if the file is missing, truncated or no image, or has colours
      of 16 bits per channel and high_byte is False.
  """
  # Pillow raises a different type for each format and kind of damage: OSError,
  # SyntaxError, struct.error, zlib.error, DecompressionBombError, ...
  try:
    image = Image.open(io.BytesIO(path.read_bytes()))
    raw_mode = str(image.tile[0].args) if image.tile else ''
    image.load()
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    if 'cannot identify image file' in reason:
      reason = 'not an image Pillow knows'
    raise SourceError(
      f'{path}: unreadable image ({reason}); replace the file or remove it'
    ) from error
  if image.mode in ('RGB', 'RGBA') and ';16' in raw_mode and not high_byte:
    # Pillow drops the lower byte, which holds ids or dark tones.
    raise SourceError(
      f'{path}: 16 bits a channel; save it with 8 bits a channel'
    )
  return image


def read_photo(path: Path) -> tuple[np.ndarray, bool]:
  """Reads a photo from a file, rotated upright as EXIF says.

  Args:
    path: the file.

  Returns:
    The photo, uint8 [H, W, 3] RGB, and whether the file is a JPEG of exactly
    these pixels, which can be stored as it is.

  Raises:
    SourceError: if it cannot be read or has more than 8 bits per channel.
  """
  photo = open_image(path)
  if photo.mode.startswith(('I', 'F')):
    raise SourceError(
      f'{path}: pixels of mode {photo.mode}, more than 8 bits a channel; '
      'save it with 8 bits a channel'
    )
  turned = photo.getexif().get(_EXIF_ORIENTATION, 1) != 1
  plain_jpeg = photo.format == 'JPEG' and photo.mode in ('RGB', 'L')
  image = np.asarray(ImageOps.exif_transpose(photo).convert('RGB'))
  return image, plain_jpeg and not turned


def read_label(path: Path) -> np.ndarray:
  """Reads an id map from an image file.

  Args:
    path: 8-bit, 16-bit or palette image, or colours R + 256 G + 65536 B.

  Returns:
    The ids of the file, unchanged, int32 [H, W].

  Raises:
    SourceError: if the file cannot be read or does not hold ids.
  """
  image = open_image(path)
  if image.mode == 'RGBA' and image.getextrema()[3] == (255, 255):
    image = image.convert('RGB')
  if image.mode not in _ID_MODES:
    raise SourceError(
      f'{path}: pixels of mode {image.mode} where ids should be; save it as '
      'an 8-bit, 16-bit, palette or RGB PNG'
    )
  ids = np.asarray(image).astype(np.int32)
  return ids @ np.array([1, 256, 65536], np.int32) if ids.ndim == 3 else ids


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
  """Reads a JSON file that must hold a list under each of some keys.

  Args:
    path: the file.
    keys: the keys.

  Returns:
    The content of the file.

  Raises:
    SourceError: if the file is not JSON or lacks a list under one of the keys.
  """
  try:
    content = json.loads(path.read_bytes())
  except ValueError as error:
    raise SourceError(
      f'{path}: not whole JSON ({error}); download it again'
    ) from error
  for key in keys:
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
      raise SourceError(f'{path}: no list {key!r} in it; download it again')
  return content


def split_at_random(names: Sequence[str]) -> dict[str, list[str]]:
  """Splits names into train, val, test 80/10/10 with seed 0, keeping order."""
  order = np.random.default_rng(SPLIT_SEED).permutation(len(names))
  tenth = round(len(names) / 10)
  bounds = [0, len(names) - 2 * tenth, len(names) - tenth, len(names)]
  return {
    split: [names[i] for i in np.sort(order[start:end])]
    for split, start, end in zip(SPLITS, bounds[:-1], bounds[1:], strict=True)
  }


def count_unlabelled(source: Source) -> Source:
  """Makes a source read the unlabelled pixels of a map as one more entity.

  Source: as in the official code.
  """

  def load_id_maps(item: Item) -> list[np.ndarray]:
    id_maps = source.load_id_maps(item)
    return [np.where(m < 0, m.max() + 1, m) for m in id_maps]

  return source._replace(load_id_maps=load_id_maps)


def load_example(source: Source, item: Item) -> dict[str, Any]:
  """Reads the photo and the id maps of one item and checks their sizes.

  Args:
    source: the source of the item.
    item: the item to read.

  Returns:
    {'name': str, 'image': uint8 [H, W, 3], 'plain_jpeg': bool, see read_photo,
    'id_maps': list of int32 [H, W], one per annotator, -1 where unlabelled}.

  Raises:
    SourceError: if a file cannot be read, there is no annotation, or photo and
      annotation differ in size.
  """
  image, plain_jpeg = read_photo(item.photo)
  id_maps = source.load_id_maps(item)
  if not id_maps:
    raise SourceError(f'{item.labels[0]}: holds no annotation')
  if source.shrinks_photos and image.shape[:2] != id_maps[0].shape:
    image, plain_jpeg = _shrink_photo(image, id_maps[0].shape), False
  height, width = image.shape[:2]
  for i, id_map in enumerate(id_maps):
    if id_map.shape != (height, width):
      size = 'x'.join(str(n) for n in reversed(id_map.shape))
      raise SourceError(
        f'{item.photo} is {width}x{height} upright but its annotation '
        f'{item.label(i)} (number {i + 1}) is {size}; give both the same size'
      )
  return {
    'name': item.name,
    'image': image,
    'plain_jpeg': plain_jpeg,
    'id_maps': id_maps,
  }


def _shrink_photo(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Shrinks a larger photo of equal aspect ratio to its annotation's size."""
  scale = max(shape) / max(image.shape[:2])
  away = np.abs(np.multiply(image.shape[:2], scale) - shape)
  if scale > 1 or away.max() > 2:  # rounding a side changes it by under 1 pixel
    return image
  size = shape[1], shape[0]
  return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
