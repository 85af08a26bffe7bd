"""Reads EntitySeg: photos in three folders, one JSON of annotations per split.

Entities are painted by area as in coco.py, and photos shrink to their size.
"""

import random
from collections.abc import Iterable
from pathlib import Path

from bitseg_jax.data.families.coco import load_masks, read_masks
from bitseg_jax.data.outside import SourceError, find_below, left_out
from bitseg_jax.data.source import SPLIT_SEED, Item, Source

# The most complete pair is read; of two such pairs, the first.
_ANNOTATIONS = [
  f'{place}/{scheme}{ending}'
  for ending in ('_lr.json', '.json')
  for scheme in ('entityseg_{}', 'entityv2_010203_entity_{}')
  for place in ('.', 'annotations', 'annotations/entity_segmentation')
]


def open_source(source_dir: str | Path, split: str = 'paper') -> Source:
  """Lists the photos and annotations of EntitySeg.

  Args:
    source_dir: holds the JSON of train and val, as in _ANNOTATIONS, and the
      photo folders entity_01_11580, entity_02_11598 and entity_03_10049,
      directly, in images/ or, at low resolution, in images_lr/.
    split: 'paper' (80/10/10 over all images with seed 0, all native validation
      images in test) or 'native' (train and val as in the files).
  """
  root = Path(source_dir)
  paths: dict[str, Path] = {}
  for form in _ANNOTATIONS:
    pair = {s: root / form.format(s) for s in ('train', 'val')}
    paths = max(paths, {s: p for s, p in pair.items() if p.is_file()}, key=len)
  if not paths:
    names = _ANNOTATIONS[0].format('train'), _ANNOTATIONS[3].format('train')
    raise SourceError(f'{root}: no {" or ".join(names)} in it')
  files = ' and '.join(path.name for path in paths.values())
  if split == 'paper' and len(paths) < 2:
    raise SourceError(
      f'{root}: only {files} in it; add the other or pass --split=native'
    )
  places = [root / 'images_lr'] * ('_lr.json' in files)
  places += [root / 'images', root]
  source = Source({}, load_masks, [], [f'{split} split of {files}'], True)
  items: dict[str, Item] = {}
  names: dict[str, list[str]] = {}
  for native, path in paths.items():
    masks = read_masks(path, source.problems)
    names[native] = list(masks)
    for name, labels in masks.items():
      with left_out(source.problems, labels[0]):
        if items.pop(name, None):
          raise ValueError(f'in {paths["train"].name} as well')
        photo = find_below(root, places, name)
        if photo is None:
          raise ValueError(f'no photo {name} in {root}')
        items[name] = Item(name, photo, labels)
  if split == 'paper':
    names = paper_split(**names)
  for part, listed in names.items():
    source.splits[part] = [items[name] for name in listed if name in items]
  return source


def paper_split(
  train: Iterable[str], val: Iterable[str]
) -> dict[str, list[str]]:
  """Splits file names as the official data/entity/process_entity.py does."""
  tenth = round(0.1 * len({*train, *val}))
  draw = random.Random(SPLIT_SEED).sample
  left = sorted(set(train) - set(val))
  test = {*val, *draw(left, min(len(left), max(0, tenth - len(set(val)))))}
  left = sorted(set(left) - test)
  chosen = set(draw(left, min(len(left), tenth)))
  train = sorted(set(left) - chosen)
  return {'train': train, 'val': sorted(chosen), 'test': sorted(test)}
