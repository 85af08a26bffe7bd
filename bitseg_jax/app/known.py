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
from collections.abc import Iterable
from os.path import lexists
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from bitseg_jax import IGNORE_ID, relabel
from bitseg_jax.data import labels, outside
from bitseg_jax.data.outside import SourceError

_SHAPES = 'points', 'polygon', 'box'
_ENDINGS = tuple(
  start + end for end in ('.png', '.tif', '.npy') for start in ('_labels', '')
)


class Said(NamedTuple):
  """What a user says of a photo, checked.

  Attributes:
    known: int32 [H, W], ids without gaps, -1 where nothing is said; or None.
    start: int32 [H, W], ids without gaps, or None.
  """

  known: np.ndarray | None = None
  start: np.ndarray | None = None


def check(
  sizes: list[tuple[int, int]],
  known: Iterable[np.ndarray | None] | None,
  start: Iterable[np.ndarray | None] | None,
) -> list[Said]:
  """Checks what is said of photos.

  Args:
    sizes: (H, W) of each photo.
    known, start: as in Segmenter.segment_batch.

  Returns:
    What is said of each photo.

  Raises:
    ValueError: in one line, if it does not fit the photos.
  """
  found = {}
  for name, given in (('known', known), ('start', start)):
    given = [None] * len(sizes) if given is None else list(given)
    if len(given) != len(sizes):
      raise ValueError(
        f'{name} is given for {len(given)} photos of {len(sizes)}'
      )
    found[name] = [
      _check_ids(name, ids, size)
      for ids, size in zip(given, sizes, strict=True)
    ]
  if len({ids is None for ids in found['start']}) > 1:
    raise ValueError('start is given for some of the photos only')
  # What is in no segment of a start forms one more.
  whole = [
    None if ids is None else np.where(ids < 0, ids.max() + 1, ids)
    for ids in found['start']
  ]
  return [Said(*one) for one in zip(found['known'], whole, strict=True)]


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


def shrink(known: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Reduces known ids to another size without losing a single pixel.

  Args:
    known: int [H, W], -1 where nothing is said.
    size: (h, w).

  Returns:
    int32 [h, w]: the id that most known pixels of a cell have, the first of
    equals; -1 where a cell has none.
  """
  small = np.full(size, IGNORE_ID, np.int32)
  ys, xs = np.nonzero(known >= 0)
  if not len(ys):
    return small
  rows, columns = ys * size[0] // known.shape[0], xs * size[1] // known.shape[1]
  count = int(known.max()) + 1
  pairs, votes = np.unique(
    (rows * size[1] + columns) * count + known[ys, xs], return_counts=True
  )
  order = np.lexsort((-pairs, votes))  # the last to be written wins
  small.ravel()[pairs[order] // count] = pairs[order] % count
  return small


class Given(NamedTuple):
  """Where the id maps of photos come from.

  Attributes:
    place: folder or JSON file.
    marks: what the JSON file holds; None for a folder.
  """

  place: Path
  marks: dict[str, Any] | None


def open_place(place: str | Path) -> Given:
  """Opens a folder or a JSON file.

  Args:
    place: the folder or the file.

  Raises:
    ValueError: it is neither, or the JSON is no object or marks nothing.
  """
  place = Path(place)
  if place.is_dir():
    return Given(place, None)
  marks = outside.read_json(place)
  if not isinstance(marks, dict):
    raise SourceError(f'{place}: must be an object with a list for each photo')
  if all(of_photo == [] for of_photo in marks.values()):
    raise SourceError(f'{place}: holds no marks')
  return Given(place, marks)


def count(given: Given, names: Iterable[str]) -> int:
  """Counts the photos of which something is given.

  Args:
    given: see open_place.
    names: of the photos' results, see photos.Photo.

  Raises:
    SourceError: there is none; then the place or a name is not the one meant.
      Or something may be given for either of two photos.
  """
  names = list(names)
  owners = {}
  for name in names:
    at = _place_of(given, name)
    if at is not None and owners.setdefault(at, name) != name:
      raise SourceError(
        f'{given.place}: {at} may be of {owners[at]} and of {name}; keep the '
        'folders of the photos, or rename it'
      )
  if not owners:
    wanted = f'"{names[0]}"' if given.marks is not None else f'{names[0]}.png'
    raise SourceError(
      f'{given.place} says nothing of any of the {len(names)} photos; of the '
      f'first it would say it in {wanted}'
    )
  return len(owners)


def fingerprint(given: Given, name: str) -> str:
  """Tells whether what is given for a photo has changed; '' of nothing."""
  found = _find(given, name)
  if found is None:
    return ''
  if isinstance(found, Path):
    content = outside.read_bytes(found)
  else:
    content = json.dumps(found).encode()
  return hashlib.sha256(content).hexdigest()


def read(given: Given, name: str, size: tuple[int, int]) -> np.ndarray | None:
  """Reads what is given for a photo.

  Args:
    given: see open_place.
    name: of the photo's results, see photos.Photo.
    size: (H, W) of the photo.

  Returns:
    int32 [H, W], -1 where nothing is said; None if nothing is given.

  Raises:
    SourceError: in one line, if a file is damaged, of another size, or says two
      things of one pixel.
  """
  found = _find(given, name)
  if found is None:
    return None
  if isinstance(found, Path):
    ids = outside.check_ids(labels.read_label(found), str(found)) - 1
    if ids.shape != size:
      raise SourceError(
        f'{found} is {ids.shape[1]} x {ids.shape[0]} pixels, but the photo '
        f'{size[1]} x {size[0]}'
      )
    return ids
  return _paint(found, f'{given.place}: {name}', size)


def _find(given, name):
  """The file or the marks of a photo."""
  at = _place_of(given, name)
  if at is None:
    return None
  return given.place / at if given.marks is None else given.marks[at]


def _place_of(given, name):
  """Name of the file or of the marks of a photo, whose folders may be left out.

  None if there is neither.
  """
  names = name, Path(name).name
  if given.marks is not None:
    return next((n for n in names if n in given.marks), None)
  files = [n + ending for n in names for ending in _ENDINGS]
  # What is there but no file, such as a broken link, is an error to be told.
  return next((f for f in files if lexists(given.place / f)), None)


def _paint(marks, where, size):
  if not isinstance(marks, list):
    raise SourceError(f'{where}: must be a list of marks')
  ids = np.full(size, -1, np.int32)
  for number, mark in enumerate(marks):
    here = f'{where}, mark {number}'
    pixels, entity = _pixels(mark, here, size), mark['id']
    other = ids[pixels][(ids[pixels] != -1) & (ids[pixels] != entity)]
    if len(other):
      raise SourceError(
        f'{here}: says {entity} of a pixel that is said to be {other[0]}'
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
  places = _places(mark[shape], shape, where, size)
  if shape == 'box':
    core = (places[0] + (places[1] - places[0]) / 4).astype(int)
    end = (places[1] - (places[1] - places[0]) / 4).astype(int)
    rows, columns = np.mgrid[core[1] : end[1] + 1, core[0] : end[0] + 1]
    return rows.ravel(), columns.ravel()
  points = places.astype(int)
  if shape == 'points' or len(points) == 1:
    return points[:, 1], points[:, 0]
  # As large as the mark alone, for there may be thousands of them.
  corner = points.min(axis=0)
  end = np.minimum(points.max(axis=0) + 2, size[::-1])
  canvas = Image.new('1', tuple((end - corner).tolist()))
  corners = [tuple(place) for place in (places - corner).tolist()]
  ImageDraw.Draw(canvas).polygon(corners, fill=1)
  rows, columns = np.nonzero(np.array(canvas))
  rows = np.concatenate([rows + corner[1], points[:, 1]])
  return rows, np.concatenate([columns + corner[0], points[:, 0]])


def _places(value, shape, where, size):
  """(x, y) within the photo, float64 [N, 2]."""
  fault = SourceError(
    f'{where}: {shape} is {outside.shown(value)}; it must be pixels within the '
    f'photo, {size[1]} x {size[0]}'
  )
  try:
    array = np.array(value)
  except ValueError:
    raise fault from None
  if array.dtype.kind not in 'iuf':  # neither text nor huge numbers
    raise fault
  array = array.astype(np.float64)
  if shape == 'box':
    array = array.reshape(2, 2) if array.shape == (4,) else array[:0]
  if array.ndim != 2 or array.shape[-1] != 2 or not len(array):
    raise fault
  if not ((array >= 0) & (array < (size[1], size[0]))).all():  # also nan
    raise fault
  if shape == 'box' and (array[1] < array[0]).any():
    raise SourceError(f'{where}: box must be [left, top, right, bottom]')
  return array
