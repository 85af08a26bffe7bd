"""Reads COCO panoptic: one JSON per split and one PNG of ids per photo.

A crowd is not an entity: its pixels are unlabelled, as in COCO's scores.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax.data.labels import read_label
from bitseg_jax.data.outside import (
  SourceError,
  as_key,
  find_below,
  read_lists,
  shown,
)
from bitseg_jax.data.source import (
  SPLIT_SEED,
  Item,
  Source,
  split_at_random,
)

# A word of its own: neither that of latest, nor those of trainval.
_SPLIT = re.compile(r'(?<![a-z])(train|val|test)(?![a-z])')
_MAX_ID = 2**24 - 1  # R + 256 G + 65536 B


class Annotation(NamedTuple):
  """The PNG of one photo, and its ids as the JSON lists them."""

  path: Path
  ids: frozenset[int]
  crowds: frozenset[int]

  def __str__(self) -> str:
    return str(self.path)


def open_source(source_dir: str | Path) -> Source:
  """Lists the photos and annotations of a dataset in COCO's panoptic format.

  Args:
    source_dir: holds NAME.json beside a folder NAME/ of PNG files, directly or
      in annotations/. Photos are in PLACE/, images/PLACE/, images/ or
      input_images/, where PLACE is NAME without a leading panoptic_. A NAME
      with the word train, val or test, such as panoptic_val2017, is that split;
      images of other files are split 80/10/10 at random with seed 0.

  Returns:
    The source.

  Raises:
    SourceError: if the directory has another layout or a JSON is damaged.
  """
  root = Path(source_dir)
  paths = [
    path
    for place in (root, root / 'annotations')
    for path in sorted(place.glob('*.json'))
    if path.with_suffix('').is_dir()
  ]
  if not paths:
    raise SourceError(
      f'{root}: no NAME.json beside a folder NAME/ of PNG files in it, nor in '
      'its annotations/'
    )
  problems: list[str] = []
  notes: list[str] = []
  splits: dict[str, list[Item]] = {}
  for path in paths:
    items = _read_items(root, path, problems)
    named = set(_SPLIT.findall(path.stem))
    if len(named) == 1:
      splits.setdefault(named.pop(), []).extend(items.values())
      continue
    notes.append(f'{path}: split 80/10/10 at random with seed {SPLIT_SEED}')
    for split, names in split_at_random(sorted(items)).items():
      splits.setdefault(split, []).extend(items[name] for name in names)
  splits = {split: items for split, items in splits.items() if items}
  return Source(splits, load_id_maps, problems, notes)


def load_id_maps(item: Item) -> list[np.ndarray]:
  """Reads the id map of one photo from its PNG.

  Args:
    item: its only label is an `Annotation`.

  Returns:
    One int32 [H, W]: R + 256 G + 65536 B, or -1 for void and crowds.

  Raises:
    SourceError: if the PNG cannot be read or has ids that are not in the JSON.
  """
  annotation = item.labels[0]
  ids = read_label(annotation.path)
  unknown = set(np.unique(ids).tolist()) - annotation.ids - {0}
  if unknown:
    raise SourceError(
      f'{annotation}: has {len(unknown)} ids that its segments_info does not '
      f'list, such as {min(unknown)}'
    )
  unlabelled = [0, *annotation.crowds]
  return [np.where(np.isin(ids, unlabelled), -1, ids).astype(np.int32)]


def _read_items(root: Path, path: Path, problems: list[str]) -> dict[str, Item]:
  """Reads the items of one JSON by name; appends to problems."""
  content = read_lists(path, ('images', 'annotations'))
  photos = {
    as_key(image['id']): image['file_name']
    for image in content['images']
    if {'id', 'file_name'} <= image.keys()
  }
  items: dict[str, Item] = {}
  for i, annotation in enumerate(content['annotations']):
    where = f'{path}: annotations[{i}]'
    try:
      item = _read_item(root, path, annotation, photos, where)
      if item.name in items:
        raise SourceError(f'{where}: {item.name}.png is listed twice')
      items[item.name] = item
    except SourceError as error:
      problems.append(str(error))
  return items


def _read_item(
  root: Path,
  path: Path,
  annotation: dict[str, Any],
  photos: dict[str, Any],
  where: str,
) -> Item:
  """Reads one entry of the annotations; raises SourceError."""
  lacking = {'file_name', 'image_id', 'segments_info'} - annotation.keys()
  if lacking:
    raise SourceError(f'{where} has no {min(lacking)!r}')
  photo = photos.get(as_key(annotation['image_id']))
  if photo is None:
    raise SourceError(
      f'{where}: images lacks its id {shown(annotation["image_id"])}'
    )
  name, own = path.stem.removeprefix('panoptic_'), path.with_suffix('')
  places = name, f'images/{name}', 'images', 'input_images'
  # Labels may have the names of the photos.
  folders = [root / place for place in places if root / place != own]
  found = find_below(root, folders, photo, where)
  if found is None:
    raise SourceError(f'{where}: no photo {shown(photo)[1:-1]} in {root}')
  png = find_below(root, [own], annotation['file_name'], where)
  if png is None:
    raise SourceError(f'{where}: no {own / annotation["file_name"]}')
  ids, crowds = _read_segments(annotation['segments_info'], where)
  return Item(png.stem, found, (Annotation(png, ids, crowds),))


def _read_segments(
  segments: Any, where: str
) -> tuple[frozenset[int], frozenset[int]]:
  """(ids, those of crowds) of a segments_info; raises SourceError."""
  if not isinstance(segments, list):
    raise SourceError(f'{where}: segments_info is {shown(segments)}, no list')
  ids, crowds = set(), set()
  for segment in segments:
    if not isinstance(segment, dict) or 'id' not in segment:
      raise SourceError(f"{where}: a segment has no 'id'")
    number, crowd = segment['id'], segment.get('iscrowd', 0)
    if type(number) is not int or not 0 < number <= _MAX_ID:
      raise SourceError(f'{where}: a segment has the id {shown(number)}')
    if crowd not in (0, 1):
      raise SourceError(
        f'{where}: a segment has iscrowd {shown(crowd)}; it must be 0 or 1'
      )
    ids.add(number)
    if crowd:
      crowds.add(number)
  return frozenset(ids), frozenset(crowds)
