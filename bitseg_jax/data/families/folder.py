"""Reads a folder of photos with id maps, the layout for a user's own data."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy import ndimage

from bitseg_jax.data.images import PHOTO_SUFFIXES
from bitseg_jax.data.labels import read_label
from bitseg_jax.data.outside import SourceError, read_lines
from bitseg_jax.data.source import (
  SPLIT_SEED,
  SPLITS,
  Item,
  Source,
  split_at_random,
)


def open_source(source_dir: str | Path, connected: bool = False) -> Source:
  """Lists the photos and labels of a folder dataset.

  Args:
    source_dir: holds images/NAME.jpg (or .png, ...) and labels/NAME.png, or
      labels/ANNOTATOR/NAME.png for several annotators. Optional train.txt,
      val.txt and test.txt list the names of each split; without any, the names
      are split 80/10/10 at random with seed 0.
    connected: the labels are semantic maps, in which pixels of one id that
      touch, if only at a corner, form an entity.

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
        'labels/*.png (or labels/ANNOTATOR/*.png)'
      )
  photos = _by_stem(root / 'images', PHOTO_SUFFIXES)
  if not photos:
    raise SourceError(
      f'{root / "images"}: no photo in it ({" ".join(PHOTO_SUFFIXES)})'
    )
  labels = _find_labels(root / 'labels')
  splits, problems, notes = _make_splits(root, sorted(photos))
  wanted = {name for names in splits.values() for name in names}
  problems += _tell_nested(root / 'images')
  problems += [
    f'{photos[name][0]}: {len(photos[name])} photos have this name; keep one'
    for name in sorted(wanted)
    if len(photos[name]) > 1
  ]
  problems += [
    f'{photos[name][0]}: no {root / "labels" / name}.png for it'
    for name in sorted(wanted - labels.keys())
  ]
  problems += [
    f'{labels[name][0]}: no photo of this name in {root / "images"}'
    for name in sorted(labels.keys() - photos.keys())
  ]
  good = {n for n in wanted if len(photos[n]) == 1 and n in labels}
  items = {
    split: [Item(n, photos[n][0], tuple(labels[n])) for n in names if n in good]
    for split, names in splits.items()
  }
  items = {split: listed for split, listed in items.items() if listed}
  notes += _tell_incomplete(root / 'labels', labels, good)
  load = load_connected if connected else load_id_maps
  return Source(items, load, problems, notes)


def load_id_maps(item: Item) -> list[np.ndarray]:
  """Reads the id maps of one photo from its PNG files.

  Args:
    item: its labels are 8-bit, 16-bit, palette or RGB PNG files (id R + 256 G
      + 65536 B), 0 where unlabelled.

  Returns:
    One int32 [H, W] per annotator: the file's id - 1, so -1 is unlabelled.

  Raises:
    SourceError: if a file cannot be read or does not hold ids.
  """
  return [read_label(path) - 1 for path in item.labels]


def load_connected(item: Item) -> list[np.ndarray]:
  """Reads id maps as `load_id_maps`, with each connected part as an entity."""
  return [_connected(id_map) for id_map in load_id_maps(item)]


def _connected(id_map: np.ndarray) -> np.ndarray:
  parts = np.full(id_map.shape, -1, np.int32)
  count = 0
  for value in np.unique(id_map[id_map >= 0]):
    labels, found = ndimage.label(id_map == value, np.ones((3, 3)))
    parts = np.where(labels > 0, labels + (count - 1), parts)
    count += found
  return parts


def _by_stem(
  directory: Path, suffixes: tuple[str, ...]
) -> dict[str, list[Path]]:
  found: dict[str, list[Path]] = {}
  for path in sorted(directory.iterdir()):
    if path.suffix.lower() in suffixes and not path.name.startswith('.'):
      found.setdefault(path.stem, []).append(path)
  return found


def _find_labels(directory: Path) -> dict[str, list[Path]]:
  """Finds the label files of each name, in labels/ and for each annotator."""
  found: dict[str, list[Path]] = {}
  for place in [directory, *_folders(directory)]:
    for name, paths in _by_stem(place, ('.png',)).items():
      found.setdefault(name, []).extend(paths)
  return found


def _folders(directory: Path) -> list[Path]:
  """Folders in it but those that programs make: hidden, or __MACOSX."""
  return sorted(
    path
    for path in directory.iterdir()
    if path.is_dir() and not path.name.startswith(('.', '__'))
  )


def _tell_nested(directory: Path) -> list[str]:
  """Lines of the folders in images/ that hold photos, which nobody reads."""
  return [
    f'{place}: {len(photos)} photos in a sub-folder; move them to {directory}'
    for place in _folders(directory)
    if (photos := _by_stem(place, PHOTO_SUFFIXES))
  ]


def _tell_incomplete(
  directory: Path, labels: dict[str, list[Path]], good: set[str]
) -> list[str]:
  """Lines of the annotators who have not labelled each photo."""
  annotators = {path.parent for name in good for path in labels[name]}
  lines = []
  for place in sorted(annotators):
    missing = sorted(
      name
      for name in good
      if all(path.parent != place for path in labels[name])
    )
    if missing:
      lines.append(
        f'{place}: no label for {len(missing)} of {len(good)} photos, such as '
        f'{missing[0]}'
      )
  return lines


def _make_splits(
  root: Path, names: list[str]
) -> tuple[dict[str, list[str]], list[str], list[str]]:
  """Returns the names of each split, lines of problems and lines of notes."""
  lists = {s: root / f'{s}.txt' for s in SPLITS}
  lists = {split: path for split, path in lists.items() if path.exists()}
  if lists:
    return _read_lists(lists, names)
  note = (
    f'no train.txt, val.txt or test.txt in {root}: '
    f'split 80/10/10 at random with seed {SPLIT_SEED}'
  )
  return split_at_random(names), [], [note]


def _read_lists(
  lists: dict[str, Path], names: list[str]
) -> tuple[dict[str, list[str]], list[str], list[str]]:
  known = set(names)
  splits: dict[str, list[str]] = {}
  problems = []
  for split, path in lists.items():
    listed = [_to_name(line, known) for line in read_lines(path)]
    problems += [
      f'{path}: lists {name}, and there is no such photo'
      for name in listed
      if name not in known
    ]
    splits[split] = sorted(known.intersection(listed))
  counts = Counter(name for listed in splits.values() for name in listed)
  shared = sorted(name for name, count in counts.items() if count > 1)
  files = ', '.join(path.name for path in lists.values())
  problems += [f'{name}: in more than one of {files}' for name in shared]
  splits = {s: [n for n in ns if counts[n] == 1] for s, ns in splits.items()}
  notes = []
  if len(counts) < len(known):
    notes.append(
      f'{len(known) - len(counts)} of {len(known)} photos are in none of '
      f'{files} and are left out'
    )
  return splits, problems, notes


def _to_name(line: str, known: Iterable[str]) -> str:
  """Strips directory and suffix off a listed name, as photo names have none."""
  name = Path(line).name
  return name if name in known else Path(line).stem
