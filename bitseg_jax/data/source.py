"""What a dataset family gives the builder: its items, and how to read one.

A family is one module with one function, `open_source(source_dir) -> Source`.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

_EXIF_ORIENTATION = 0x0112


class SourceError(ValueError):
  """The given data is at fault: one line for the user, no traceback."""


class Item(NamedTuple):
  """A photo and where its annotations are; light, so that millions fit."""

  name: str  # unique over all splits
  photo: Path
  labels: tuple[Any, ...]  # what the family's `load_id_maps` understands

  def label(self, annotator: int) -> Any:
    """The label of one annotator, or the one that holds them all."""
    return self.labels[min(annotator, len(self.labels) - 1)]


class Source(NamedTuple):
  """A dataset as it lies on disk before it is prepared."""

  splits: dict[str, list[Item]]
  load_id_maps: Callable[[Item], list[np.ndarray]]  # int32 [H, W], -1 = none
  problems: list[str]  # items left out when listing, one line each
  notes: list[str]  # what the user should know, one line each


def open_image(path: Path) -> Image.Image:
  """Reads and decodes a whole image file.

  Args:
    path: the file.

  Returns:
    The decoded image, its pixels not yet turned by EXIF.

  Raises:
    SourceError: the file is missing, truncated or no image.
  """
  # Pillow raises another type for each format and kind of damage: OSError,
  # SyntaxError, struct.error, zlib.error, DecompressionBombError, ...
  try:
    image = Image.open(io.BytesIO(path.read_bytes()))
    image.load()
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    if 'cannot identify image file' in reason:
      reason = 'not an image Pillow knows'
    raise SourceError(
      f'{path}: unreadable image ({reason}); replace the file or remove it'
    ) from error
  return image


def read_photo(path: Path) -> tuple[np.ndarray, bool]:
  """Reads a photo upright, as EXIF says it is to be shown.

  Args:
    path: the file.

  Returns:
    The photo, uint8 [H, W, 3] RGB, and whether the file is a JPEG with these
    very pixels, so that it can be stored as it is.

  Raises:
    SourceError: the file cannot be read or has more than 8 bits a channel.
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


def load_example(source: Source, item: Item) -> dict[str, Any]:
  """Reads one item of a source, checked.

  Args:
    source: where the item comes from.
    item: which one.

  Returns:
    `name`; `image` uint8 [H, W, 3]; `plain_jpeg`, see `read_photo`;
    `id_maps`, a list of int32 [H, W], one an annotator, -1 = unlabelled.

  Raises:
    SourceError: a file cannot be read, or photo and annotation disagree.
  """
  image, plain_jpeg = read_photo(item.photo)
  id_maps = source.load_id_maps(item)
  if not id_maps:
    raise SourceError(f'{item.labels[0]}: holds no annotation')
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
