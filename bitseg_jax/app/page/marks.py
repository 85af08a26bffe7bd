"""Clicks on the picture: which entity each belongs to, and what they say.

Pixels are those of the picture that is clicked on. Whatever comes from the
browser is checked here.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

_MOST_POINTS = 2000  # of a stroke; what follows is left out


class Mark(NamedTuple):
  """A click, or a stroke drawn with the mouse.

  Attributes:
    entity: number of the entity that it belongs to, from 0.
    points: (x, y) of its corners, in pixels; of a click one.
  """

  entity: int
  points: tuple[tuple[int, int], ...]


class Marks(NamedTuple):
  """All marks on a picture.

  Attributes:
    done: marks, the oldest first.
    active: entity that the next one belongs to; None for a new one.
  """

  done: tuple[Mark, ...] = ()
  active: int | None = None

  @property
  def count(self) -> int:
    """Number of the entities that are marked."""
    return 1 + max((mark.entity for mark in self.done), default=-1)


def act(
  marks: Marks, what: Mapping[str, Any], size: tuple[int, int]
) -> tuple[Marks, str]:
  """Does what somebody asked for on the page.

  Args:
    marks: those so far.
    what: {'points': [[x, y], ...]} of a new mark, as shares of the picture's
      width and height; or {'act': 'new', 'undo', 'clear', or the number of an
      entity as text}.
    size: height and width of the picture.

  Returns:
    The marks, and a line on what is wrong with the new one, '' if nothing is;
    then they are what they were.
  """
  if 'points' in what:
    points = _to_pixels(what['points'], size)
    return _add(marks, points, size) if points else (marks, '')
  name = str(what.get('act'))
  if name == 'undo' and marks.done:
    *rest, last = marks.done
    before = Marks(tuple(rest), None)
    return before._replace(
      active=last.entity if last.entity < before.count else None
    ), ''
  if name == 'clear':
    return Marks(), ''
  if name == 'new':
    return marks._replace(active=None), ''
  if name in map(str, range(marks.count)):
    return marks._replace(active=int(name)), ''
  return marks, ''


def known(marks: Marks, size: tuple[int, int]) -> np.ndarray:
  """Returns what the marks say, as Segmenter.segment takes it.

  Args:
    marks: the marks.
    size: height and width of the picture.

  Returns:
    int32 [h, w]: the number of the entity at each marked pixel, -1 elsewhere.
  """
  ids = np.full(size, -1, np.int32)
  for mark in marks.done:
    ids[_pixels(mark, size)] = mark.entity
  return ids


def enlarge(
  pixels: tuple[np.ndarray, np.ndarray],
  size: tuple[int, int],
  full: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the pixels of the photo in the middle of those of the picture.

  Args:
    pixels: rows and columns.
    size, full: height and width of the picture, and of the photo.

  Returns:
    Rows and columns.
  """
  rows, columns = (
    (2 * along + 1) * new // (2 * old)
    for along, old, new in zip(pixels, size, full, strict=True)
  )
  return rows, columns


def as_json(
  marks: Marks, name: str, size: tuple[int, int], full: tuple[int, int]
) -> dict[str, Any]:
  """Returns the marks as --known reads them, see app/known_files.py.

  Args:
    marks: the marks.
    name: the photo's, without suffix.
    size, full: height and width of the picture, and of the photo.
  """
  ids = known(marks, size)
  described = []
  for entity in range(marks.count):
    rows, columns = enlarge(np.nonzero(ids == entity), size, full)
    points = np.stack([columns, rows], axis=1).tolist()
    described.append({'id': entity + 1, 'points': points})
  return {name: described}


def letter(entity: int) -> str:
  """Returns the letters that an entity is called on the page: A, ..., Z, AA."""
  letters = ''
  while entity >= 0:
    letters = chr(ord('A') + entity % 26) + letters
    entity = entity // 26 - 1
  return letters


def _add(marks, points, size):
  entity = marks.count if marks.active is None else marks.active
  mark = Mark(entity, points)
  there = known(marks, size)[_pixels(mark, size)]
  others = there[(there >= 0) & (there != entity)]
  if len(others):
    other = letter(int(others[0]))
    return marks, (
      f'This goes over a mark of {other}, and one pixel cannot be of two '
      f'entities. Nothing was changed: mark another place, choose {other}, or '
      'undo.'
    )
  return Marks((*marks.done, mark), entity), ''


def _to_pixels(points, size):
  """Corners in pixels, () for what no browser of ours would send."""
  try:
    shares = np.array(points[:_MOST_POINTS], np.float64).reshape(-1, 2)
  except (TypeError, ValueError, OverflowError):
    return ()
  if not len(shares) or not np.isfinite(shares).all():
    return ()
  end = np.array(size[::-1])
  pixels = np.clip(np.floor(shares.clip(-1, 2) * end), 0, end - 1).astype(int)
  return tuple(map(tuple, pixels.tolist()))


def _pixels(mark, size):
  """Rows and columns of the pixels that a mark covers."""
  canvas = Image.new('1', size[::-1])
  draw = ImageDraw.Draw(canvas)
  draw.line(mark.points, fill=1)
  draw.point(mark.points, fill=1)
  return np.nonzero(np.array(canvas))
