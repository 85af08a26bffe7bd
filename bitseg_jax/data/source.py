"""Defines what a dataset family provides, and reads one item of a source.

A family is one function, `open_source(source_dir) -> Source`, which raises
SourceError if the directory has another layout.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax.data import transforms
from bitseg_jax.data.images import open_photo
from bitseg_jax.data.outside import SourceError

SPLITS = ('train', 'val', 'test')
SPLIT_SEED = 0


class Item(NamedTuple):
  """Paths of a photo and its annotations; small, so that millions fit."""

  name: str  # unique in its split
  photo: Path
  labels: tuple[Any, ...]  # paths, and what else `load_id_maps` understands

  def label(self, annotator: int) -> Any:
    """Returns the label of one annotator, or the only one, shared by all."""
    return self.labels[min(annotator, len(self.labels) - 1)]


class Source(NamedTuple):
  """A dataset as it is on disk before it is prepared."""

  splits: dict[str, list[Item]]
  load_id_maps: Callable[[Item], list[np.ndarray]]  # int32 [H, W], -1 = none
  problems: list[str]  # items left out when listing, one line each
  notes: list[str]  # what the user should know; reading an item adds to it
  shrinks_photos: bool = False  # photos may be larger than their annotation
  exif: str = 'apply'  # see images.read_photo
  page: int = 0


def split_at_random(items: Sequence) -> dict[str, list]:
  """Splits items into train, val, test 80/10/10 with seed 0, keeping order."""
  order = np.random.default_rng(SPLIT_SEED).permutation(len(items))
  tenth = round(len(items) / 10)
  parts = np.split(order, [len(items) - 2 * tenth, len(items) - tenth])
  return {
    split: [items[i] for i in np.sort(part)]
    for split, part in zip(SPLITS, parts, strict=True)
  }


def load_example(source: Source, item: Item) -> dict[str, Any]:
  """Reads the photo and the id maps of one item.

  Returns:
    {'image': uint8 [H, W, 3], 'plain_jpeg': whether the file is a JPEG of these
    pixels, 'id_maps': int32 [H, W] of each annotator, -1 where unlabelled}.

  Raises:
    SourceError: a file cannot be read, or photo and annotation do not fit.
  """
  note = source.notes.append
  photo = open_photo(item.photo, source.exif, source.page, note)
  image, plain = photo.image, photo.plain
  id_maps = source.load_id_maps(item)
  if not id_maps:
    raise SourceError(f'{item.label(0)}: holds no annotation')
  shape = id_maps[0].shape
  if source.shrinks_photos and image.shape[:2] != shape:
    scale = max(shape) / max(image.shape[:2])
    away = np.abs(np.multiply(image.shape[:2], scale) - shape)
    if scale <= 1 and away.max() <= 2:  # the aspect ratio is the same
      image, plain = transforms.resize_image(image, shape), False
  height, width = shape = image.shape[:2]
  for i, id_map in enumerate(id_maps):
    if id_map.shape != shape:
      advice = 'give both the same size'
      if photo.orientation > 4 and id_map.shape == shape[::-1]:
        other = 'ignore' if source.exif == 'apply' else 'apply'
        advice = f'as EXIF data turns it, give --exif={other}'
      raise SourceError(
        f'{item.photo} is {width}x{height}, but its annotation {item.label(i)} '
        f'(number {i + 1}) is {id_map.shape[1]}x{id_map.shape[0]}; {advice}'
      )
  if photo.orientation > 1 and source.exif == 'apply':
    note(
      f'{item.photo}: is turned by its EXIF data; if its annotation was drawn '
      'on it as stored, give --exif=ignore'
    )
  return {'image': image, 'plain_jpeg': plain, 'id_maps': id_maps}
