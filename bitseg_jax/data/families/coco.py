"""Reads COCO panoptic (PNG of ids) and COCO instances (polygons, run lengths).

A crowd is not an entity: its pixels are unlabelled, as in COCO's scores. Masks
are painted by area, the largest first, so that small ones stay on top; of two
with equal area, the later one in the file is on top.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax.data import rle
from bitseg_jax.data.labels import read_label
from bitseg_jax.data.outside import (
  MAX_PIXELS,
  SourceError,
  as_key,
  find_below,
  plain_name,
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


class Masks(NamedTuple):
  """The masks of one photo as the JSON lists them."""

  where: str  # file and image, for messages
  height: int
  width: int
  masks: list[tuple[str, Any, bool]]  # id, segmentation or None, is a crowd

  def __str__(self) -> str:
    return self.where


def open_panoptic(source_dir: str | Path) -> Source:
  """Lists the photos and annotations of a dataset in COCO's panoptic format.

  Args:
    source_dir: holds NAME.json beside a folder NAME/ of PNG files, directly or
      in annotations/. Photos are in PLACE/, images/PLACE/, images/,
      input_images/ or where their names say, and PLACE is NAME without a
      leading panoptic_. A NAME with the word train, val or test, such as
      panoptic_val2017, is that split; images of other files are split 80/10/10
      at random with seed 0.

  Returns:
    The source.

  Raises:
    SourceError: if the directory has another layout or a JSON is damaged.
  """
  root = Path(source_dir)
  paths = [path for path in _jsons(root) if path.with_suffix('').is_dir()]
  if not paths:
    raise SourceError(
      f'{root}: no NAME.json beside a folder NAME/ of PNG files in it, nor in '
      'its annotations/; a JSON of polygons is --dataset=coco_instances'
    )
  return _open(root, paths, _list_panoptic, load_panoptic)


def open_instances(source_dir: str | Path) -> Source:
  """Lists the photos and annotations of a dataset in COCO's instances format.

  Args:
    source_dir: holds instances_NAME.json, or else other JSON files, directly,
      in annotations/ or beside the photos of each split. Photos and splits are
      found as by `open_panoptic`.

  Returns:
    The source.

  Raises:
    SourceError: if the directory has another layout or a JSON is damaged.
  """
  root = Path(source_dir)
  paths = _jsons(root) or sorted(root.glob('*/*.json'))
  paths = [p for p in paths if p.name.startswith('instances_')] or paths
  if not paths:
    raise SourceError(
      f'{root}: no instances_NAME.json in it, nor in its annotations/'
    )
  return _open(root, paths, _list_instances, load_masks)


def load_panoptic(item: Item) -> list[np.ndarray]:
  """Reads the id map of one photo from its PNG.

  Args:
    item: its only label is an `Annotation`.

  Returns:
    One int32 [H, W]: R + 256 G + 65536 B, or -1 for void and crowds.

  Raises:
    SourceError: if the PNG cannot be read or has ids that are not in the JSON.
  """
  annotation = item.labels[0]
  ids = read_label(annotation.path, colours=True, note=lambda line: None)
  unknown = set(np.unique(ids).tolist()) - annotation.ids - {0}
  if unknown:
    raise SourceError(
      f'{annotation}: has {len(unknown)} ids that its segments_info does not '
      f'list, such as {min(unknown)}'
    )
  unlabelled = [0, *annotation.crowds]
  return [np.where(np.isin(ids, unlabelled), -1, ids).astype(np.int32)]


def load_masks(item: Item) -> list[np.ndarray]:
  """Reads the id map of one photo by painting its masks.

  Args:
    item: its only label is a `Masks`.

  Returns:
    One int32 [H, W]: the mask's position in the file, -1 where there is none
    but a crowd.

  Raises:
    SourceError: if a segmentation is damaged or does not fit the image.
  """
  where, height, width, masks = item.labels[0]
  painted = []
  for i, (name, segmentation, is_crowd) in enumerate(masks):
    try:
      pixels = rle.decode(segmentation, height, width)
    except (ValueError, TypeError) as error:
      raise SourceError(f'{where}, annotation {name}: {error}') from error
    if not is_crowd:
      painted.append((-len(pixels), i, pixels))
  id_map = np.full(width * height, -1, np.int32)
  for _, i, pixels in sorted(painted, key=lambda one: one[:2]):
    id_map[pixels] = i
  return [np.ascontiguousarray(id_map.reshape(width, height).T)]


def read_masks(path: Path, problems: list[str]) -> dict[str, Masks]:
  """Reads the masks of each file name in a JSON; appends to problems."""
  content = read_lists(path, ('images', 'annotations'))
  masks = defaultdict(list)
  for i, mask in enumerate(content['annotations']):
    if 'image_id' not in mask:
      raise SourceError(f"{path}: annotations[{i}] has no 'image_id'")
    is_crowd = mask.get('iscrowd', 0) in (1, '1')
    listed = shown(mask.get('id', [i])), mask.get('segmentation'), is_crowd
    masks[_key(mask['image_id'])].append(listed)
  named, found = _names_by_id(content), {}
  names = Counter(as_key(image.get('file_name')) for image in content['images'])
  for i, image in enumerate(content['images']):
    lacking = {'file_name', 'height', 'width', 'id'} - image.keys()
    if lacking:
      problems.append(f'{path}: images[{i}] has no {min(lacking)!r}')
      continue
    where, name = f'{path}, image {shown(image["id"])}', image['file_name']
    size, key = (image['height'], image['width']), _key(image['id'])
    whole = all(type(side) is int and side > 0 for side in size)
    if not isinstance(name, str):
      problems.append(f'{where}: {shown(name)} is no file name')
    elif names[name] > 1:
      problems.append(f'{where}: {name} is listed twice')
    elif len(named[key]) > 1:
      problems.append(f'{where}: {_shared(named[key])}')
    elif not whole or size[0] * size[1] > MAX_PIXELS:
      height, width = map(shown, size)
      problems.append(f'{where}: height {height} and width {width}')
    else:
      found[name] = Masks(where, *size, masks[key])
  strange = sorted(
    masks.keys() - {_key(i.get('id')) for i in content['images']}
  )
  if strange:
    problems.append(
      f'{path}: annotations of {len(strange)} images that it does not list, '
      f'such as image {strange[0]}'
    )
  return found


def _open(root, paths, list_items, load):
  """Makes a source of what `list_items` finds in each JSON."""
  source = Source({}, load, problems=[], notes=[])
  for path in paths:
    items = list_items(root, path, source)
    own_folder = path.stem.startswith('_annotations')
    words = _SPLIT.findall(
      (path.parent.name if own_folder else path.stem).replace('valid', 'val')
    )
    if len(set(words)) == 1:
      source.splits.setdefault(words[0], []).extend(items.values())
      continue
    source.notes.append(
      f'{path}: split 80/10/10 at random with seed {SPLIT_SEED}'
    )
    for split, names in split_at_random(sorted(items)).items():
      source.splits.setdefault(split, []).extend(items[name] for name in names)
  for split in [split for split, items in source.splits.items() if not items]:
    del source.splits[split]
  return source


def _list_panoptic(root, path, source):
  """Lists the items of one JSON by name."""
  content = read_lists(path, ('images', 'annotations'))
  named, own = _names_by_id(content), path.with_suffix('')
  items: dict[str, Item] = {}
  for i, annotation in enumerate(content['annotations']):
    where = f'{path}: annotations[{i}]'
    try:
      lacking = {'file_name', 'image_id', 'segments_info'} - annotation.keys()
      if lacking:
        raise SourceError(f'{where} has no {min(lacking)!r}')
      number = annotation['image_id']
      photos = named[_key(number)]
      if not photos:
        raise SourceError(f'{where}: images lacks its id {shown(number)}')
      if len(photos) > 1:
        raise SourceError(f'{where}: {_shared(photos)}')
      photo, _ = _find_photo(root, path, 'panoptic_', photos[0], where)
      places = [own, own.parent, root]
      png = find_below(root, places, annotation['file_name'], where)
      if png is None:
        raise SourceError(f'{where}: no {own / annotation["file_name"]}')
      below = png.relative_to(own if png.is_relative_to(own) else root)
      name = plain_name(below.with_suffix('').as_posix())
      if name in items:
        raise SourceError(f'{where}: {name}.png is listed twice')
      label = Annotation(
        png, *_read_segments(annotation['segments_info'], where)
      )
      items[name] = Item(name, photo, (label,))
    except SourceError as error:
      source.problems.append(str(error))
  return items


def _list_instances(root, path, source):
  """Lists the items of one JSON by name; images without any mask are none."""
  items: dict[str, Item] = {}
  empty = 0
  for photo, masks in read_masks(path, source.problems).items():
    if all(is_crowd for _, _, is_crowd in masks.masks):
      empty += 1
      continue
    try:
      found, below = _find_photo(root, path, 'instances_', photo, masks.where)
      name = plain_name(below.with_suffix('').as_posix())
      if name in items:
        raise SourceError(f'{masks.where}: another photo is called {name}')
      items[name] = Item(name, found, (masks,))
    except SourceError as error:
      source.problems.append(str(error))
  if empty:
    source.notes.append(f'{path}: {empty} images without masks are left out')
  return items


def _find_photo(root, path, prefix, name, where):
  """Finds a photo; returns it, and its path below where such photos are."""
  stem, own = path.stem.removeprefix(prefix), path.with_suffix('')
  places = stem, f'images/{stem}', 'images', 'input_images'
  # Labels may have the names of the photos.
  folders = [root / place for place in places if root / place != own]
  folders += [path.parent, root]
  found = find_below(root, folders, name, where)
  if found is None or own in found.parents:
    raise SourceError(f'{where}: no photo {shown(name)[1:-1]} in {root}')
  place = next(f for f in folders if found.is_relative_to(f))
  return found, found.relative_to(place)


def _read_segments(segments, where):
  """(ids, those of crowds) of a segments_info; raises SourceError."""
  if not isinstance(segments, list):
    raise SourceError(f'{where}: segments_info is {shown(segments)}, no list')
  ids, crowds = set(), set()
  for segment in segments:
    if not isinstance(segment, dict) or 'id' not in segment:
      raise SourceError(f"{where}: a segment has no 'id'")
    number, crowd = segment['id'], segment.get('iscrowd', 0)
    if isinstance(number, str) and re.fullmatch('[0-9]{1,8}', number):
      number = int(number)
    if type(number) is not int or not 0 < number <= _MAX_ID:
      raise SourceError(f'{where}: a segment has the id {shown(number)}')
    if crowd not in (0, 1, '0', '1'):
      raise SourceError(
        f'{where}: a segment has iscrowd {shown(crowd)}; it must be 0 or 1'
      )
    ids.add(number)
    if crowd in (1, '1'):
      crowds.add(number)
  return frozenset(ids), frozenset(crowds)


def _key(number):
  """An id as text, for some programs write them so."""
  return str(as_key(number))


def _names_by_id(content):
  """File names of the images by id; more than one where ids were mixed up."""
  named = defaultdict(list)
  for image in content['images']:
    if {'id', 'file_name'} <= image.keys():
      names = named[_key(image['id'])]
      if image['file_name'] not in names:
        names.append(image['file_name'])
  return named


def _shared(names):
  return (
    f'images gives one id to {shown(names[0])} and to {shown(names[1])}; give '
    'each its own, for none says whose labels these are'
  )


def _jsons(root):
  places = root, root / 'annotations'
  return [path for place in places for path in sorted(place.glob('*.json'))]
