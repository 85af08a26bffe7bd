"""Reads a folder of photos with id maps, the layout for a user's own data."""

import re
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
from skimage import measure

from bitseg_jax.data import labels
from bitseg_jax.data.images import PHOTO_SUFFIXES
from bitseg_jax.data.outside import SourceError, read_lines
from bitseg_jax.data.source import SPLITS, Item, Source, split_at_random

# By these names; the second are those of Pascal VOC, which CVAT exports.
_FOLDERS = ('images', 'JPEGImages'), ('labels', 'SegmentationObject', 'masks')


def open_source(
  source_dir: str | Path, connected: bool = False, ignore: Sequence[int] = ()
) -> Source:
  """Lists the photos and labels of a folder dataset.

  Args:
    source_dir: holds images/NAME.jpg (or .png, ...) and labels/NAME.png (or
      another of labels.SUFFIXES, after one of labels.ENDINGS), or
      labels/ANNOTATOR/NAME.png. Optional train.txt, val.txt and test.txt list
      the names of each split; else they are random.
    connected: pixels of one id form an entity only where they touch.
    ignore: ids in the files that mean unlabelled, beside 0.
  """
  root, folders = Path(source_dir), []
  for names in _FOLDERS:
    found = [root / name for name in names if (root / name).is_dir()]
    if not found:
      raise SourceError(
        f'{root}: no {names[0]}/ in it; --source wants images/*.jpg and '
        'labels/*.png (or labels/ANNOTATOR/*.png)'
      )
    folders.append(found[0])
  images, annotations = folders

  def load_id_maps(item: Item) -> list[np.ndarray]:
    id_maps = []
    for path in item.labels:
      ids = labels.read_label(path, ignore, note=source.notes.append)
      if connected:
        ids = measure.label(ids, connectivity=2).astype(np.int32)
      id_maps.append(ids - 1)
    return id_maps

  source = Source({}, load_id_maps, problems=[], notes=[])
  photos: dict[str, list[Path]] = {}
  for path in filter(_is_photo, _visible(images)):
    photos.setdefault(normalize('NFC', path.stem), []).append(path)
  if not photos:
    raise SourceError(f'{images}: no photo in it ({" ".join(PHOTO_SUFFIXES)})')
  for place in _visible(images, folders=True):
    if count := sum(map(_is_photo, _visible(place))):
      source.problems.append(
        f'{place}: {count} photos in a sub-folder; move them to {images}'
      )
  splits = _make_splits(root, sorted(photos), source)
  found = _find_labels(annotations, photos.keys(), source.problems)
  for split, names in splits.items():
    for name in names:
      path, *others = photos[name]
      if others:
        source.problems.append(
          f'{path}: {len(others) + 1} photos have this name; keep one'
        )
      elif name in found:
        item = Item(name, path, tuple(found[name]))
        source.splits.setdefault(split, []).append(item)
      else:
        source.problems.append(
          f'{path}: no {annotations / name}{"|".join(labels.SUFFIXES)} for it'
        )
  return source


def _is_photo(path):
  return path.suffix.lower() in PHOTO_SUFFIXES


def _visible(directory, folders=False):
  """Files or folders in it, but not those that programs make."""
  hidden = ('.', '__') if folders else '.'
  return sorted(
    path
    for path in directory.iterdir()
    if path.is_dir() == folders and not path.name.startswith(hidden)
  )


def _find_labels(directory, names, problems):
  found: dict[str, list[Path]] = {}
  for place in [directory, *_visible(directory, folders=True)]:
    own: dict[str, list[Path]] = {}
    for path in _visible(place):
      stem, suffix = normalize('NFC', path.stem), path.suffix.lower()
      bases = [stem.removesuffix(e) for e in labels.ENDINGS if stem.endswith(e)]
      bases += [Path(base).stem for base in bases if _is_photo(Path(base))]
      name = next((base for base in bases if base in names), None)
      if name and suffix in labels.SUFFIXES:
        own.setdefault(name, []).append(path)
        continue
      # Other files of a photo, such as NAME_overlay.png, are no labels.
      starts = [stem, *(stem[: m.start()] for m in re.finditer('[_.-]', stem))]
      is_label = suffix in labels.SUFFIXES and suffix != '.json'
      if is_label and names.isdisjoint(starts):
        problems.append(f'{path}: no photo of this name')
    for name, paths in own.items():
      # labelme's may lie beside the PNG that was made of it.
      paths = [p for p in paths if p.suffix.lower() != '.json'] or paths
      if len(paths) == 1:
        found.setdefault(name, []).append(paths[0])
      else:
        problems.append(
          f'{paths[0]} and {paths[1]} may both be the label of {name}; keep one'
        )
  return found


def _make_splits(root, names, source):
  lists = [path for s in SPLITS if (path := root / f'{s}.txt').exists()]
  if not lists:
    source.notes.append(f'{root}: split 80/10/10 at random with seed 0')
    return split_at_random(names)
  known = {name.casefold(): name for name in names}
  known |= {name: name for name in names}
  splits: dict[str, set[str]] = {}
  for path in lists:
    listed = splits[path.stem] = set()
    for line in read_lines(path):
      # Lists may give folder and suffix, as photo names do not, or two columns.
      line = normalize('NFC', line.replace('\\', '/'))
      ways = [line, re.split(r'[\s,;]', line)[0]]
      ways = [way.rpartition('/')[2] for way in ways]
      ways = [part for way in ways for part in (way, way.rpartition('.')[0])]
      ways += [way.casefold() for way in ways]
      found = next((known[way] for way in ways if way in known), None)
      if found:
        listed.add(found)
      else:
        source.problems.append(f'{path}: lists {ways[0]}, which is no photo')
  if left := set(names).difference(*splits.values()):
    files = ', '.join(path.name for path in lists)
    source.notes.append(f'{len(left)} photos are in none of {files}')
  return {split: sorted(listed) for split, listed in splits.items()}
