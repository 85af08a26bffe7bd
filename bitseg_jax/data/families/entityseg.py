"""Reads EntitySeg: photos in three folders, one JSON of annotations per split.

Entities are painted by area, the largest first, so that small ones stay on top;
of two with equal area, the later one in the file is on top.
"""

import glob
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax.data import rle
from bitseg_jax.data.outside import (
  MAX_PIXELS,
  SourceError,
  as_key,
  find_below,
  read_lists,
  shown,
)
from bitseg_jax.data.source import SPLIT_SEED, Item, Source

_SCHEMES = ('entityseg_{}', 'entityv2_010203_entity_{}')
_PLACES = ('.', 'annotations', 'annotations/entity_segmentation')


class Annotation(NamedTuple):
  """The entities of one photo as the JSON lists them."""

  where: str  # file and image, for messages
  height: int
  width: int
  entities: list[tuple[Any, Any]]  # id and segmentation, or None without one

  def __str__(self) -> str:
    return self.where


def open_source(source_dir: str | Path, split: str = 'paper') -> Source:
  """Lists the photos and annotations of EntitySeg.

  Args:
    source_dir: holds entityseg_{train,val}[_lr].json or
      entityv2_010203_entity_{train,val}[_lr].json, directly, in annotations/ or
      in annotations/entity_segmentation/, low resolution preferred; and the
      photo folders entity_01_11580, entity_02_11598 and entity_03_10049,
      directly, in images/ or in images_lr/.
    split: 'paper' (80/10/10 over all images with seed 0, all native validation
      images in test) or 'native' (train and val as in the files).

  Returns:
    The source; photos shrink to the size that the JSON gives.

  Raises:
    SourceError: if the directory has another layout or a JSON is damaged.
  """
  root = Path(source_dir)
  paths = _find_annotations(root, split)
  low = any(path.stem.endswith('_lr') for path in paths.values())
  problems: list[str] = []
  items: dict[str, Item] = {}
  natives: dict[str, list[str]] = {}
  places = _photo_places(root, low)
  for native, path in paths.items():
    annotations = _read_annotations(path, problems)
    natives[native] = list(annotations)
    for name, annotation in annotations.items():
      try:
        photo = _find_photo(root, name, places, str(annotation))
      except SourceError as error:
        problems.append(str(error))
        continue
      if name in items:
        problems.append(f'{annotation}: in {paths["train"].name} as well')
        del items[name]
      elif photo is None:
        problems.append(f'{annotation}: no photo {name} in {root}')
      else:
        items[name] = Item(name, photo, (annotation,))
  if split == 'paper':
    names = paper_split(natives['train'], natives['val'])
  else:
    names = natives
  splits = {s: [items[n] for n in ns if n in items] for s, ns in names.items()}
  splits = {s: listed for s, listed in splits.items() if listed}
  note = (
    f'{split} split of {" and ".join(path.name for path in paths.values())}'
  )
  return Source(splits, load_id_maps, problems, [note], shrinks_photos=True)


def paper_split(
  train: Iterable[str], val: Iterable[str]
) -> dict[str, list[str]]:
  """Splits file names 80/10/10, with all native validation images in test.

  Args:
    train: file names of the native training images.
    val: file names of the native validation images.

  Returns:
    {'train', 'val', 'test'}: sorted file names.

  Source: the official data/entity/process_entity.py, with the same draws.
  """
  tenth = round(0.1 * len({*train, *val}))
  draw = random.Random(SPLIT_SEED).sample
  left = sorted(set(train) - set(val))
  test = {*val, *draw(left, min(len(left), max(0, tenth - len(set(val)))))}
  left = sorted(set(left) - test)
  chosen = set(draw(left, min(len(left), tenth)))
  return {
    'train': sorted(set(left) - chosen),
    'val': sorted(chosen),
    'test': sorted(test),
  }


def load_id_maps(item: Item) -> list[np.ndarray]:
  """Reads the id map of one photo by painting its entities.

  Args:
    item: its only label is an `Annotation`.

  Returns:
    One int32 [H, W]: the entity's position in the file, -1 where there is none.

  Raises:
    SourceError: if a segmentation is damaged or does not fit the image.
  """
  annotation = item.labels[0]
  height, width = annotation.height, annotation.width
  pixels = []
  for name, segmentation in annotation.entities:
    try:
      pixels.append(rle.decode(segmentation, height, width))
    except (ValueError, TypeError) as error:
      raise SourceError(f'{annotation}, annotation {name}: {error}') from error
  id_map = np.full(width * height, -1, np.int32)
  for i in sorted(range(len(pixels)), key=lambda i: -len(pixels[i])):
    id_map[pixels[i]] = i
  return [np.ascontiguousarray(id_map.reshape(width, height).T)]


def _find_annotations(root: Path, split: str) -> dict[str, Path]:
  """Finds the JSONs of train and val: the most complete pair, _lr preferred."""
  candidates = []
  for suffix in ('_lr.json', '.json'):
    for scheme in _SCHEMES:
      for place in _PLACES:
        paths = {
          native: root / place / (scheme.format(native) + suffix)
          for native in ('train', 'val')
        }
        candidates.append({s: p for s, p in paths.items() if p.is_file()})
  found = max(candidates, key=len)
  if not found:
    raise SourceError(
      f'{root}: no entityseg_train[_lr].json, _val[_lr].json or '
      'entityv2_010203_entity_train[_lr].json, _val[_lr].json in it'
    )
  if split == 'paper' and len(found) < 2:
    (only,) = found.values()
    raise SourceError(
      f'{root}: only {only.name} in it, and the split of the paper needs '
      'train and val; add the other or pass --split=native'
    )
  return found


def _read_annotations(path: Path, problems: list[str]) -> dict[str, Annotation]:
  """Reads the annotation of each file name; appends to problems."""
  content = read_lists(path, ('images', 'annotations'))
  entities = defaultdict(list)
  for i, entity in enumerate(content['annotations']):
    if 'image_id' not in entity:
      raise SourceError(f"{path}: annotations[{i}] has no 'image_id'")
    listed = shown(entity.get('id', [i])), entity.get('segmentation')
    entities[as_key(entity['image_id'])].append(listed)
  found = {}
  names = Counter(as_key(image.get('file_name')) for image in content['images'])
  for i, image in enumerate(content['images']):
    own = entities.pop(as_key(image.get('id')), [])
    lacking = {'file_name', 'height', 'width', 'id'} - image.keys()
    if lacking:
      problems.append(f'{path}: images[{i}] has no {min(lacking)!r}')
      continue
    where = f'{path}, image {shown(image["id"])}'
    name = image['file_name']
    if not isinstance(name, str):
      problems.append(f'{where}: {shown(name)} is no file name')
      continue
    if names[name] > 1:
      problems.append(f'{where}: {name} is listed twice')
      continue
    size = image['height'], image['width']
    whole = all(type(side) is int and side > 0 for side in size)
    if not whole or size[0] * size[1] > MAX_PIXELS:
      height, width = map(shown, size)
      problems.append(f'{where}: height {height} and width {width}')
      continue
    found[name] = Annotation(where, *size, own)
  if entities:
    problems.append(
      f'{path}: annotations of {len(entities)} images that it does not list, '
      f'such as image {next(iter(entities))}'
    )
  return found


def _photo_places(root: Path, low: bool) -> list[Path]:
  """Lists directories that may hold photo folders; images_lr/ only if low."""
  names = ('images_lr', 'images', '.') if low else ('images', '.')
  return [root / name for name in names if (root / name).is_dir()]


def _find_photo(
  root: Path, name: str, places: list[Path], where: str
) -> Path | None:
  found = find_below(root, places, name, where)
  if found is not None:
    return found
  # An unpacked archive may nest a folder: entity_01_11580/images_merge/7.jpg.
  for place in places:
    pattern = f'*/{glob.escape(Path(name).name)}'
    nested = sorted((place / name).parent.glob(pattern))
    if nested:
      below = str(nested[0].relative_to(place))
      return find_below(root, [place], below, where)
  return None
