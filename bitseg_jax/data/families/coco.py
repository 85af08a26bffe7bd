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
  SourceError,
  as_key,
  check_size,
  find_below,
  left_out,
  named,
  plain_name,
  read_lists,
  shown,
)
from bitseg_jax.data.source import Item, Source, split_at_random

# A word of its own: neither that of latest, nor those of trainval.
_SPLIT = re.compile(
  r'(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])', re.IGNORECASE
)


class Png(NamedTuple):
  """The PNG of one photo, and the ids that the JSON lists for it."""

  where: Path
  crowds: dict[int, bool]  # by id

  def __str__(self) -> str:
    return str(self.where)


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
  """Reads the one id map of a photo: R + 256 G + 65536 B, or -1."""
  path, crowds = item.labels[0]
  ids = read_label(path, colours=True, note=lambda line: None)
  unknown = set(np.unique(ids).tolist()) - crowds.keys() - {0}
  if unknown:
    raise SourceError(
      f'{path}: has {len(unknown)} ids that its segments_info does not list, '
      f'such as {min(unknown)}'
    )
  void = [0, *(number for number, is_crowd in crowds.items() if is_crowd)]
  return [np.where(np.isin(ids, void), -1, ids).astype(np.int32)]


def load_masks(item: Item) -> list[np.ndarray]:
  """Paints the masks of a photo, each with its position in the file, or -1."""
  where, height, width, masks = item.labels[0]
  painted = []
  for i, (name, segmentation, is_crowd) in enumerate(masks):
    with named(f'{where}, annotation {name}', 'is damaged'):
      pixels = rle.decode(segmentation, height, width)
    if not is_crowd:
      painted.append((-len(pixels), i, pixels))
  id_map = np.full(width * height, -1, np.int32)
  for _, i, pixels in sorted(painted, key=lambda one: one[:2]):
    id_map[pixels] = i
  return [np.ascontiguousarray(id_map.reshape(width, height).T)]


def read_masks(path: Path, problems: list[str]) -> dict[str, Masks]:
  """Reads the masks of each file name in a JSON; appends to problems."""
  content = read_lists(path, 'images', 'annotations')
  masks = defaultdict(list)
  for i, mask in enumerate(content['annotations']):
    with named(f'{path}: annotations[{i}]', 'is damaged', 'download it again'):
      is_crowd = bool(_whole(mask.get('iscrowd') or 0, 0, 1))
      listed = shown(mask.get('id', [i])), mask.get('segmentation'), is_crowd
      masks[_key(mask['image_id'])].append(listed)
  ids, found = _names_by_id(content), {}
  times = Counter(as_key(one.get('file_name')) for one in content['images'])
  for image in content['images']:
    where = f'{path}, image {shown(image.get("id"))}'
    with left_out(problems, where):
      name = _only_name(ids, image['id'])
      if times[name] > 1:
        raise ValueError(f'{shown(name)} is listed twice')
      size = check_size(image['height'], image['width'])
      found[name] = Masks(where, *size, masks[_key(image['id'])])
  strange = sorted(masks.keys() - ids.keys())
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
    beside = path.stem.startswith('_annotations')  # beside the photos
    name = path.parent.name if beside else path.stem
    words = {word.lower() for word in _SPLIT.findall(name)}
    parts = dict.fromkeys(words, sorted(items))
    if len(words) != 1:
      parts = split_at_random(sorted(items))
      source.notes.append(f'{path}: split 80/10/10 at random with seed 0')
    for split, names in parts.items():
      listed = source.splits.setdefault(split, [])
      listed.extend(items[name] for name in names)
  return source


def _list_panoptic(root, path, source):
  """Lists the items of one JSON by name."""
  content = read_lists(path, 'images', 'annotations')
  ids, own = _names_by_id(content), path.with_suffix('')
  items: dict[str, Item] = {}
  for i, annotation in enumerate(content['annotations']):
    with left_out(source.problems, f'{path}: annotations[{i}]'):
      photo = _only_name(ids, annotation['image_id'])
      photo, _ = _find_photo(root, path, photo)
      places = [own, own.parent, root]
      png = find_below(root, places, annotation['file_name'])
      if png is None:
        raise ValueError(f'no {own / annotation["file_name"]}')
      below = png.relative_to(own if png.is_relative_to(own) else root)
      name = plain_name(below.with_suffix('').as_posix())
      if name in items:
        raise ValueError(f'{name}.png is listed twice')
      crowds = {
        _whole(one['id'], 1, 2**24 - 1): bool(
          _whole(one.get('iscrowd', 0), 0, 1)
        )
        for one in annotation['segments_info']
      }
      items[name] = Item(name, photo, (Png(png, crowds),))
  used = {_key(one.get('image_id')) for one in content['annotations']}
  _note_empty(source, path, len(ids.keys() - used))
  return items


def _list_instances(root, path, source):
  """Lists the items of one JSON by name; images without any mask are none."""
  items: dict[str, Item] = {}
  listed = read_masks(path, source.problems)
  full = {k: m for k, m in listed.items() if not all(c for *_, c in m.masks)}
  _note_empty(source, path, len(listed) - len(full))
  for photo, masks in full.items():
    with left_out(source.problems, masks.where):
      found, below = _find_photo(root, path, photo)
      name = plain_name(below.with_suffix('').as_posix())
      if name in items:
        raise ValueError(f'another photo is called {name}')
      items[name] = Item(name, found, (masks,))
  return items


def _note_empty(source, path, number):
  if number:
    source.notes.append(f'{path}: {number} images without labels are left out')


def _find_photo(root, path, name):
  """Finds a photo; returns it, and its path below where such photos are."""
  stem, own = (
    re.sub('^(panoptic|instances)_', '', path.stem),
    path.with_suffix(''),
  )
  places = stem, f'images/{stem}', 'images', 'input_images'
  # Labels may have the names of the photos.
  folders = [root / place for place in places if root / place != own]
  folders += [path.parent, root]
  found = find_below(root, folders, name)
  if found is None or own in found.parents:
    raise ValueError(f'no photo {shown(name)[1:-1]} in {root}')
  place = next(f for f in folders if found.is_relative_to(f))
  return found, found.relative_to(place)


def _whole(value, least, most):
  """A whole number, which some programs write as text or as true."""
  text = str(int(value) if isinstance(value, bool) else value)
  if not re.fullmatch('[0-9]{1,8}', text) or not least <= int(text) <= most:
    raise ValueError(f'{shown(value)} should be a number in {least} to {most}')
  return int(text)


def _key(number):
  """An id as text, for some programs write them so."""
  return str(as_key(number))


def _names_by_id(content):
  """File names of the images by id; more than one where ids were mixed up."""
  named = defaultdict(list)
  for image in content['images']:
    names = named[_key(image.get('id'))]
    if image.get('file_name') not in names:
      names.append(image.get('file_name'))
  return named


def _only_name(names_by_id, number):
  if _key(number) not in names_by_id:
    raise ValueError(f'images lacks its id {shown(number)}')
  name, *others = names_by_id[_key(number)]
  if others:
    raise ValueError(
      f'images gives one id to {shown(name)} and to {shown(others[0])}; '
      'give each its own, for none says whose labels these are'
    )
  if not isinstance(name, str):
    raise ValueError(f'{shown(name)} is no file name')
  return name


def _jsons(root):
  places = root, root / 'annotations'
  return [path for place in places for path in sorted(place.glob('*.json'))]
