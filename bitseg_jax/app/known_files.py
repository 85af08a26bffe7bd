"""Reads from files what is known of photos, and segmentations to begin from.

A folder holds NAME_labels.png or NAME.png for a photo: 8 or 16 bits, of the
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

from bitseg_jax.data import labels, outside
from bitseg_jax.data.outside import SourceError

_SHAPES = 'points', 'polygon', 'box'


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
  files = [n + suffix for n in names for suffix in ('_labels.png', '.png')]
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
    (left, top), (right, bottom) = places
    across, down = (right - left) / 4, (bottom - top) / 4
    places = np.array(
      [(left + across, top + down), (right - across, bottom - down)]
    )
  points = places.astype(int)
  if shape == 'points' or len(points) == 1:
    return points[:, 1], points[:, 0]
  # As large as the mark alone, for there may be thousands of them.
  corner = points.min(axis=0)
  end = np.minimum(points.max(axis=0) + 2, size[::-1])
  canvas = Image.new('1', tuple((end - corner).tolist()))
  draw = ImageDraw.Draw(canvas)
  if shape == 'polygon':
    draw.polygon([tuple(place) for place in (places - corner).tolist()], fill=1)
  else:
    draw.rectangle([tuple(p) for p in (points - corner).tolist()], fill=1)
  for point in (points - corner).tolist():
    draw.point(tuple(point), fill=1)
  rows, columns = np.nonzero(np.array(canvas))
  return rows + corner[1], columns + corner[0]


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
