"""What a user says of a photo: from arrays, or from files.

A folder holds NAME_labels.png or NAME.png for a photo (or .tif, .npy), of the
photo's size, 0 = nothing is said, as `predict` writes its labels. A JSON file
holds marks in pixels, from the left and the top:

  {"NAME": [{"id": 1, "points": [[x, y], ...]},
            {"id": 2, "polygon": [[x, y], ...]},
            {"id": 2, "box": [left, top, right, bottom]}], ...}

Of a box its core is known, the inner half of each side.
"""

import hashlib
import json
from collections.abc import Sequence
from os.path import lexists
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from skimage import draw

from bitseg_jax import IGNORE_ID, relabel
from bitseg_jax.data import labels, outside
from bitseg_jax.data.images import PHOTO_SUFFIXES
from bitseg_jax.data.outside import SourceError

_SHAPES = 'points', 'polygon', 'box'
_ENDINGS = tuple(
  start + end for end in ('.png', '.tif', '.npy') for start in ('_labels', '')
)


def check(
  sizes: Sequence[tuple[int, int]],
  known: Sequence[np.ndarray | None] | None,
  start: Sequence[np.ndarray | None] | None,
) -> tuple[list[np.ndarray | None], list[np.ndarray | None]]:
  """Checks what is said of photos.

  Args:
    sizes: (H, W) of each photo.
    known, start: as in Segmenter.segment_batch.

  Returns:
    Of each photo what is known, int32 [H, W], ids without gaps, -1 where
    nothing is said, or None; and its start, with an id everywhere, or None.
    Raises ValueError, in one line, if it does not fit the photos.
  """
  found = []
  for name, given in (('known', known), ('start', start)):
    given = [None] * len(sizes) if given is None else given
    if len(given) != len(sizes):
      raise ValueError(
        f'{name} is given for {len(given)} photos of {len(sizes)}'
      )
    found.append(list(map(_check_ids, [name] * len(sizes), given, sizes)))
  known, start = found
  if len({ids is None for ids in start}) > 1:
    raise ValueError('start is given for some of the photos only')
  # Pixels in no segment of a start form one more.
  return known, [
    None if ids is None else np.where(ids < 0, ids.max() + 1, ids)
    for ids in start
  ]


def _check_ids(name, ids, size):
  """Ids as 0, 1, ... in the order of their first pixels; None of nothing."""
  if ids is None:
    return None
  ids = np.asarray(ids)
  if ids.dtype.kind not in 'iu' or ids.shape != tuple(size):
    raise ValueError(
      f'{name} must be integers {list(size)}, the size of the photo, but is '
      f'{ids.dtype} {list(ids.shape)}'
    )
  if ids.min() < IGNORE_ID:
    raise ValueError(
      f'{name} contains {ids.min()}; ids are 0 or more, and -1 is not said'
    )
  said = ids >= 0  # often few of millions
  found = np.full(ids.shape, IGNORE_ID, np.int32)
  found[said] = relabel.by_first_appearance(ids[said].astype(np.int64))
  return found if said.any() else None


class Given(NamedTuple):
  """What files say of photos."""

  place: Path  # the folder or the JSON file
  of: dict[str, Any]  # of photos of which something is said: file or marks


def open_place(
  place: str | Path, names: Sequence[str], output: Path | None = None
) -> Given:
  """Finds what a folder or a JSON file says of photos.

  Photos are found by the names of their results, with or without folders.

  Raises:
    SourceError: the place is neither, or says nothing of any of the photos, so
      is not the one meant; something may be said of either of two photos; or
      it lies in the output.
  """
  place, marks = Path(place), None
  path = place.resolve()
  if output is not None and output.resolve() in (path, *path.parents):
    raise SourceError(
      f'{place} lies in the output {output}, where it would be written over; '
      'give a copy of it, or another output'
    )
  if not place.is_dir():
    marks = outside.read_json(place)
    if not isinstance(marks, dict) or not any(marks.values()):
      raise SourceError(f'{place}: must hold marks, a list for each photo')
  found, owners = {}, {}
  for name in names:
    endings = _ENDINGS if marks is None else ('', *PHOTO_SUFFIXES)
    keys = [k + end for k in (name, Path(name).name) for end in endings]
    # What is there but no file, such as a broken link, is an error to be told.
    there = lambda key: lexists(place / key) if marks is None else key in marks
    key = next(filter(there, keys), None)
    if key is None:
      continue
    if owners.setdefault(key, name) != name:
      raise SourceError(
        f'{place}: {key} may be of {owners[key]} and of {name}; keep the '
        'folders of the photos, or rename it'
      )
    found[name] = place / key if marks is None else marks[key]
  if not found:
    wanted = f'{names[0]}.png' if marks is None else f'"{names[0]}"'
    raise SourceError(
      f'{place} says nothing of any of the {len(names)} photos; of the first '
      f'it would say it in {wanted}'
    )
  return Given(place, found)


def fingerprint(given: Given, name: str) -> str:
  """Tells whether what is said of a photo has changed; '' of nothing."""
  if name not in given.of:
    return ''
  found = given.of[name]
  if isinstance(found, Path):
    content = outside.read_bytes(found)
  else:
    content = json.dumps(found).encode()
  return hashlib.sha256(content).hexdigest()


def read(given: Given, name: str, size: tuple[int, int]) -> np.ndarray | None:
  """Reads what is said of a photo of size (H, W).

  Returns:
    int32 [H, W], -1 where nothing is said; None if nothing is said at all.

  Raises:
    SourceError: a file is damaged, of another size, or says two things of one
      pixel.
  """
  if name not in given.of:
    return None
  found = given.of[name]
  if isinstance(found, Path):
    ids = labels.read_label(found) - 1
    if ids.shape != size:
      raise SourceError(
        f'{found} is {ids.shape[1]} x {ids.shape[0]} pixels, but the photo '
        f'{size[1]} x {size[0]}'
      )
    return ids
  where = f'{given.place}: {name}'
  if not isinstance(found, list):
    raise SourceError(f'{where}: must be a list of marks')
  ids = np.full(size, IGNORE_ID, np.int32)
  for number, mark in enumerate(found):
    here = f'{where}, mark {number}'
    pixels, entity = _pixels(mark, here, size), mark['id']
    others = set(ids[pixels].tolist()) - {IGNORE_ID, entity}
    if others:
      raise SourceError(
        f'{here}: says {entity} of a pixel that is said to be {min(others)}'
      )
    ids[pixels] = entity
  return ids


def _pixels(mark, where, size):
  """Rows and columns of the pixels that one mark covers, at least one."""
  shapes = [s for s in _SHAPES if isinstance(mark, dict) and s in mark]
  if len(shapes) != 1 or set(mark) != {'id', *shapes}:
    raise SourceError(
      f'{where}: must have an id and one of {", ".join(_SHAPES)}, but is '
      f'{outside.shown(mark)}'
    )
  entity, (shape,) = mark['id'], shapes
  if type(entity) is not int or not 0 <= entity <= outside.MAX_ID:
    raise SourceError(
      f'{where}: id is {outside.shown(entity)}; it must be whole and 0 or more'
    )
  try:
    places = np.array(mark[shape])
    places = places.reshape(2, 2) if shape == 'box' else places
    # Text and huge numbers have other types; nan compares as False.
    valid = places.dtype.kind in 'iuf' and places.shape == (len(places), 2)
    valid = valid and ((places >= 0) & (places < size[::-1])).all()
  except (TypeError, ValueError):
    valid = False
  if not valid:
    raise SourceError(
      f'{where}: {shape} is {outside.shown(mark[shape])}; it must be pixels '
      f'within the photo, {size[1]} x {size[0]}'
    )
  if shape == 'box':
    if (places[1] < places[0]).any():
      raise SourceError(f'{where}: box must be [left, top, right, bottom]')
    margin = (places[1] - places[0]) / 4
    left, top = (places[0] + margin).astype(int)
    right, bottom = (places[1] - margin).astype(int)
    return tuple(np.mgrid[top : bottom + 1, left : right + 1].reshape(2, -1))
  columns, rows = places.astype(int).T
  return draw.polygon(rows, columns) if shape == 'polygon' else (rows, columns)
