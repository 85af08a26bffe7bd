"""Reads a folder of photos with id maps, the layout for a user's own data."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from skimage import measure

from bitseg_jax.data import labels
from bitseg_jax.data.images import PHOTO_SUFFIXES
from bitseg_jax.data.outside import SourceError, plain_name, read_lines
from bitseg_jax.data.source import (
  SPLIT_SEED,
  SPLITS,
  Item,
  Source,
  split_at_random,
)


def open_source(
  source_dir: str | Path, connected: bool = False, ignore: Sequence[int] = ()
) -> Source:
  """Lists the photos and labels of a folder dataset.

  Args:
    source_dir: holds images/NAME.jpg (or .png, ...) and labels/NAME.png (or
      another of labels.SUFFIXES, after one of labels.ENDINGS), or
      labels/ANNOTATOR/NAME.png for several annotators. Optional train.txt,
      val.txt and test.txt list the names of each split; without any, the names
      are split 80/10/10 at random with seed 0.
    connected: the labels are semantic maps, in which pixels of one id that
      touch, if only at a corner, form an entity.
    ignore: ids in the files that mean unlabelled, beside 0.

  Returns:
    The source.

  Raises:
    SourceError: if images/ or labels/ is missing, or images/ has no photo.
  """
  root = Path(source_dir)
  for name in ('images', 'labels'):
    if not (root / name).is_dir():
      raise SourceError(
        f'{root}: no {name}/ in it; --source wants images/*.jpg and '
        f'labels/*.png (or {" ".join(labels.SUFFIXES[1:])} of labelme, or '
        'labels/ANNOTATOR/*.png)'
      )
  photos: dict[str, list[Path]] = {}
  for path in _files(root / 'images'):
    if path.suffix.lower() in PHOTO_SUFFIXES:
      photos.setdefault(plain_name(path.stem), []).append(path)
  if not photos:
    raise SourceError(
      f'{root / "images"}: no photo in it ({" ".join(PHOTO_SUFFIXES)})'
    )
  problems: list[str] = []
  notes: list[str] = []
  splits = _make_splits(root, sorted(photos), problems, notes)
  for place in _folders(root / 'images'):
    inside = [p for p in _files(place) if p.suffix.lower() in PHOTO_SUFFIXES]
    if inside:
      problems.append(
        f'{place}: {len(inside)} photos in a sub-folder; move them to '
        f'{root / "images"}'
      )
  found, near = _find_labels(root / 'labels', photos.keys(), problems)
  wanted = {name for names in splits.values() for name in names}
  good = set()
  for name in sorted(wanted):
    path = photos[name][0]
    if len(photos[name]) > 1:
      problems.append(
        f'{path}: {len(photos[name])} photos have this name; keep one'
      )
    elif name in found:
      good.add(name)
    else:
      problem = f'{path}: no {root / "labels" / name}.png for it'
      if name in near:
        problem += (
          f', and {near[name]} is not read; export PNG, TIFF or .npy of ids, '
          'or JSON of labelme (of COCO: --dataset=coco_instances)'
        )
      problems.append(problem)
  items = {
    split: [Item(n, photos[n][0], tuple(found[n])) for n in names if n in good]
    for split, names in splits.items()
  }
  items = {split: listed for split, listed in items.items() if listed}
  for place in sorted({path.parent for name in good for path in found[name]}):
    missing = sorted(
      name for name in good if all(p.parent != place for p in found[name])
    )
    if missing:
      notes.append(
        f'{place}: no label for {len(missing)} of {len(good)} photos, such as '
        f'{missing[0]}'
      )

  def load_id_maps(item: Item) -> list[np.ndarray]:
    read = lambda path: labels.read_label(path, ignore, note=notes.append) - 1
    id_maps = [read(path) for path in item.labels]
    if connected:
      id_maps = [
        measure.label(m, background=-1, connectivity=2).astype(np.int32) - 1
        for m in id_maps
      ]
    return id_maps

  return Source(items, load_id_maps, problems, notes)


def _files(directory: Path) -> Iterator[Path]:
  for path in sorted(directory.iterdir()):
    if not path.name.startswith('.') and not path.is_dir():
      yield path


def _folders(directory: Path) -> list[Path]:
  """Folders in it but those that programs make: hidden, or __MACOSX."""
  return sorted(
    path
    for path in directory.iterdir()
    if path.is_dir() and not path.name.startswith(('.', '__'))
  )


def _find_labels(
  directory: Path, names: Iterable[str], problems: list[str]
) -> tuple[dict[str, list[Path]], dict[str, Path]]:
  """Finds the label files of each photo, in labels/ and for each annotator.

  Returns:
    The files by name, and for names with a file that is no label that file.
  """
  found: dict[str, list[Path]] = {}
  near: dict[str, Path] = {}
  for place in [directory, *_folders(directory)]:
    own: dict[str, list[Path]] = {}
    strange = []
    for path in _files(place):
      stem = plain_name(path.stem)
      bases = [
        re.sub(rf'({"|".join(PHOTO_SUFFIXES)})$', '', base, flags=re.I)
        if base not in names
        else base
        for ending in labels.ENDINGS
        if stem.endswith(ending) and (base := stem.removesuffix(ending))
      ]
      name = next((base for base in bases if base in names), None)
      if path.suffix.lower() not in labels.SUFFIXES:
        near.setdefault(name or stem, path)
      elif name:
        own.setdefault(name, []).append(path)
      elif path.suffix.lower() != '.json':
        strange.append((stem, path))
    for name, paths in own.items():
      # labelme's may lie beside the PNG that was made of it.
      paths = [p for p in paths if p.suffix.lower() != '.json'] or paths
      if len(paths) == 1:
        found.setdefault(name, []).append(paths[0])
      else:
        problems.append(
          f'{paths[0]} and {paths[1]} may both be the label of {name}; keep one'
        )
    for stem, path in strange:
      # Other files of a photo, such as NAME_overlay.png, are no labels.
      starts = [stem[: m.start()] for m in re.finditer('[_.-]', stem)]
      name = next((start for start in starts[::-1] if start in names), None)
      if name:
        near.setdefault(name, path)
      else:
        problems.append(
          f'{path}: no photo of this name in {directory.parent / "images"}'
        )
  return found, near


def _make_splits(
  root: Path, names: list[str], problems: list[str], notes: list[str]
) -> dict[str, list[str]]:
  """Returns the names of each split; appends to problems and notes."""
  lists = {s: root / f'{s}.txt' for s in SPLITS}
  lists = {split: path for split, path in lists.items() if path.exists()}
  if not lists:
    notes.append(
      f'no train.txt, val.txt or test.txt in {root}: '
      f'split 80/10/10 at random with seed {SPLIT_SEED}'
    )
    return split_at_random(names)
  known = {name.casefold(): name for name in names}
  known |= {name: name for name in names}
  splits: dict[str, list[str]] = {}
  for split, path in lists.items():
    listed = set()
    for line in read_lines(path):
      # Lists may give the folder and the suffix, as photo names do not.
      name = plain_name(line).replace('\\', '/').rpartition('/')[2]
      ways = name, name.rpartition('.')[0]
      ways = *ways, *(way.casefold() for way in ways)
      found = next((known[way] for way in ways if way in known), None)
      if found:
        listed.add(found)
      else:
        problems.append(f'{path}: lists {name}, and there is no such photo')
    splits[split] = sorted(listed)
  counts = Counter(name for listed in splits.values() for name in listed)
  files = ', '.join(path.name for path in lists.values())
  problems += [
    f'{name}: in more than one of {files}'
    for name in sorted(counts)
    if counts[name] > 1
  ]
  if len(counts) < len(names):
    notes.append(
      f'{len(names) - len(counts)} of {len(names)} photos are in none of '
      f'{files} and are left out'
    )
  return {s: [n for n in ns if counts[n] == 1] for s, ns in splits.items()}
