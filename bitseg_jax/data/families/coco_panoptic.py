"""Reads COCO panoptic: one JSON per split and one PNG of ids per photo.

A crowd is not an entity: its pixels are unlabelled, as in COCO's scores.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bitseg_jax.data.source import (
  SPLIT_SEED,
  SPLITS,
  Item,
  Source,
  SourceError,
  read_json,
  read_label,
  split_at_random,
)


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
      that contains train, val or test is that split; images of other files are
      split 80/10/10 at random with seed 0.

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
    named = [split for split in SPLITS if split in path.stem]
    if named:
      splits.setdefault(named[0], []).extend(items.values())
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
  content = read_json(path, ('images', 'annotations'))
  photos = {
    image['id']: image['file_name']
    for image in content['images']
    if {'id', 'file_name'} <= image.keys()
  }
  name = path.stem.removeprefix('panoptic_')
  folders = (root / name, root / 'images' / name, root / 'images')
  items: dict[str, Item] = {}
  for i, annotation in enumerate(content['annotations']):
    where = f'{path}: annotations[{i}]'
    lacking = {'file_name', 'image_id', 'segments_info'} - annotation.keys()
    if lacking:
      problems.append(f'{where} has no {min(lacking)!r}')
      continue
    photo = photos.get(annotation['image_id'], '')
    found = [f / photo for f in (*folders, root / 'input_images')]
    found = [photo for photo in found if photo.is_file()]
    png = path.with_suffix('') / annotation['file_name']
    segments = annotation['segments_info']
    if not photo:
      problems.append(f'{where}: images lacks its id {annotation["image_id"]}')
    elif not found:
      problems.append(f'{where}: no photo {photo} in {root}')
    elif png.stem in items:
      problems.append(f'{where}: {png.name} is listed twice')
    elif any('id' not in segment for segment in segments):
      problems.append(f"{where}: a segment has no 'id'")
    else:
      ids = frozenset(segment['id'] for segment in segments)
      crowds = frozenset(s['id'] for s in segments if s.get('iscrowd'))
      label = Annotation(png, ids, crowds)
      items[png.stem] = Item(png.stem, found[0], (label,))
  return items
