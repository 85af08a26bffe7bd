"""Reads COCO panoptic (PNG of ids) and COCO instances (polygons, run lengths).

A crowd is not an entity: its pixels are unlabelled, as in COCO's scores. Masks
are painted by area, the largest first, so that small ones stay on top; of two
with equal area, the later one in the file is on top.
"""

import re
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np

from bitseg_jax.data import outside, rle
from bitseg_jax.data.labels import read_label
from bitseg_jax.data.outside import SourceError, left_out, shown
from bitseg_jax.data.source import Item, Source, split_at_random

# A word of its own: neither that of latest, nor those of trainval.
_SPLIT = re.compile(
  r'(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])', re.IGNORECASE
)


def open_panoptic(source_dir: str | Path) -> Source:
  """Lists each NAME.json beside a folder NAME/ of PNG files.

  They lie directly in source_dir or in its annotations/. Photos are in PLACE/,
  images/PLACE/, images/, input_images/ or where their names say, and PLACE is
  NAME without a leading panoptic_. A NAME with the word train, val or test is
  that split; images of other files are split at random.
  """
  root = Path(source_dir)
  paths = [path for path in _jsons(root) if path.with_suffix('').is_dir()]
  if not paths:
    raise SourceError(
      f'{root}: no NAME.json beside a folder NAME/ of PNG files, nor in its '
      'annotations/; a JSON of polygons is --dataset=coco_instances'
    )
  return _open(root, paths, _list_panoptic, load_panoptic)


def open_instances(source_dir: str | Path) -> Source:
  """Lists each instances_NAME.json, or else each JSON file.

  They lie directly in source_dir, in its annotations/ or beside the photos of
  each split. Photos and splits are found as by `open_panoptic`.
  """
  root = Path(source_dir)
  paths = _jsons(root) or sorted(root.glob('*/*.json'))
  paths = [p for p in paths if p.name.startswith('instances_')] or paths
  if not paths:
    raise SourceError(f'{root}: no instances_NAME.json, nor in annotations/')
  return _open(root, paths, _list_instances, load_masks)


def _jsons(root):
  return sorted(root.glob('*.json')) + sorted(root.glob('annotations/*.json'))


def _open(root, paths, list_items, load):
  """Makes a source of what `list_items` finds in each JSON."""
  source = Source({}, load, problems=[], notes=[])
  for path in paths:
    items = sorted(list_items(root, path, source), key=lambda one: one.name)
    beside = path.stem.startswith('_annotations')  # beside the photos
    name = path.parent.name if beside else path.stem
    words = {word.lower() for word in _SPLIT.findall(name)}
    parts = dict.fromkeys(words, items)
    if len(words) != 1:
      parts = split_at_random(items)
      source.notes.append(f'{path}: split 80/10/10 at random with seed 0')
    for split, listed in parts.items():
      source.splits.setdefault(split, []).extend(listed)
  return source


def _list_panoptic(root, path, source):
  """Yields an item for each annotation: its PNG, and which ids are crowds."""
  content = outside.read_lists(path, 'images', 'annotations')
  names, own = _names_by_id(path, content['images']), path.with_suffix('')
  for i, annotation in enumerate(content['annotations']):
    with left_out(source.problems, f'{path}: annotations[{i}]'):
      number, name = annotation['image_id'], annotation['file_name']
      if _key(number) not in names:
        raise ValueError(f'images lacks its id {shown(number)}')
      own_name, photo = _find_photo(root, path, names[_key(number)])
      png = outside.find_below(root, [own, own.parent, root], name)
      if png is None:
        raise ValueError(f'no {own / name}')
      crowds = {
        _whole(segment['id'], 1, 2**24 - 1): _is_crowd(segment)
        for segment in annotation['segments_info']
      }
      yield Item(own_name, photo, (png, crowds))
  used = {_key(one.get('image_id')) for one in content['annotations']}
  _note_empty(source, path, len(names.keys() - used))


def load_panoptic(item: Item) -> list[np.ndarray]:
  """Reads the one id map of a photo: R + 256 G + 65536 B, or -1."""
  path, crowds = item.labels
  ids = read_label(path, colours=True, note=lambda line: None)
  unknown = set(np.unique(ids).tolist()) - crowds.keys() - {0}
  if unknown:
    raise SourceError(
      f'{path}: has {len(unknown)} ids that its segments_info does not list, '
      f'such as {min(unknown)}'
    )
  void = [0, *(number for number, is_crowd in crowds.items() if is_crowd)]
  return [np.where(np.isin(ids, void), -1, ids).astype(np.int32)]


def _list_instances(root, path, source):
  """Yields an item for each image with a mask that is no crowd."""
  listed = read_masks(path, source.problems)
  full = {photo: labels for photo, labels in listed.items() if labels[2]}
  for photo, labels in full.items():
    with left_out(source.problems, labels[0]):
      yield Item(*_find_photo(root, path, photo), labels)
  _note_empty(source, path, len(listed) - len(full))


def read_masks(path: Path, problems: list[str]) -> dict[str, tuple]:
  """Reads the masks of each file name in a JSON, as `Item.labels`.

  They are what to call the image in messages, its (height, width), and of each
  mask that is no crowd its id and segmentation.
  """
  content = outside.read_lists(path, 'images', 'annotations')
  masks = defaultdict(list)
  for i, mask in enumerate(content['annotations']):
    with outside.named(f'{path}: annotations[{i}]', 'is damaged'):
      of_image = masks[_key(mask['image_id'])]
      if not _is_crowd(mask):
        of_image.append((shown(mask.get('id', [i])), mask.get('segmentation')))
  names, found = _names_by_id(path, content['images']), {}
  for image in content['images']:
    where = f'{path}, image {shown(image.get("id"))}'
    with left_out(problems, where):
      key, size = _key(image['id']), (image['height'], image['width'])
      labels = where, outside.check_size(*size), masks[key]
      if found.setdefault(names[key], labels) is not labels:
        raise ValueError(f'{shown(names[key])} is listed twice')
  if strange := masks.keys() - names.keys():
    line = f'annotations of {len(strange)} images that it does not list'
    problems.append(f'{path}: {line}, such as image {min(strange)}')
  return found


def load_masks(item: Item) -> list[np.ndarray]:
  """Paints the masks of a photo, each with its position, or -1."""
  where, (height, width), masks = item.labels
  pixels = []
  for name, segmentation in masks:
    with outside.named(f'{where}, annotation {name}', 'is damaged'):
      pixels.append(rle.decode(segmentation, height, width))
  id_map = np.full(width * height, -1, np.int32)
  for i in sorted(range(len(masks)), key=lambda i: -len(pixels[i])):
    id_map[pixels[i]] = i
  return [np.ascontiguousarray(id_map.reshape(width, height).T)]


def _note_empty(source, path, number):
  if number:
    source.notes.append(f'{path}: {number} images without labels are left out')


def _find_photo(root, path, name):
  """Finds a photo; returns its name below where such photos are, and it."""
  own = path.with_suffix('')  # labels may have the names of the photos
  stem = re.sub('^(panoptic|instances)_', '', path.stem)
  places = stem, f'images/{stem}', 'images', 'input_images'
  folders = [root / place for place in places if root / place != own]
  folders += [path.parent, root]
  found = outside.find_below(root, folders, name)
  if found is None or own in found.parents:
    raise ValueError(f'no photo {shown(name)[1:-1]} in {root}')
  place = next(f for f in folders if found.is_relative_to(f))
  below = found.relative_to(place).with_suffix('').as_posix()
  return unicodedata.normalize('NFC', below), found


def _is_crowd(annotation):
  return bool(_whole(annotation.get('iscrowd') or 0, 0, 1))


def _whole(value, least, most):
  """A whole number, which some programs write as text or as true."""
  text = str(int(value) if isinstance(value, bool) else value)
  if not re.fullmatch('[0-9]{1,8}', text) or not least <= int(text) <= most:
    raise ValueError(f'{shown(value)} should be a number in {least} to {most}')
  return int(text)


def _key(number):
  return str(number) if isinstance(number, int | str) else shown(number)


def _names_by_id(path, images):
  names = {}
  for image in images:
    key, name = _key(image.get('id')), image.get('file_name')
    if names.setdefault(key, name) != name:
      both = f'{shown(names[key])} and to {shown(name)}'
      raise SourceError(f'{path}: one id to {both}; give each its own')
  return names
