"""The picture that one clicks on: its marks, entities and buttons, as HTML.

Pixels are those of the picture. Whatever comes from the browser is checked
here. Parts of the component are filled in separately, so that a new mark
appears before there is a new segmentation.
"""

import base64
import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from bitseg_jax.app import polygons

SCRIPT = Path(__file__).with_name('board.js').read_text()
# `marks` stand in the picture and have the colours of its entities.
TEMPLATE = """<div class="board" style="${colors}">
<div class="said">${said}</div><div class="chips">${chips}</div>
<div class="told">${told}</div>
<div>${value.replace('</svg>', marks + '</svg>')}</div></div>"""
_DRAWING = '<path class="drawing" d=""/>'  # follows the mouse
PARTS = {'colors': '', 'said': '', 'chips': '', 'told': '', 'marks': _DRAWING}
HINT = (
  'Not as you want it? Click on the picture. Clicks with one letter are one '
  'entity, those with another letter are another; a mouse can also draw.'
)
_MOST_POINTS = 2000  # of a stroke; what follows is left out


class Mark(NamedTuple):
  """A click, or a stroke drawn with the mouse."""

  entity: int  # that it belongs to, from 0
  points: tuple[tuple[int, int], ...]  # (x, y) of its corners; of a click one


class Marks(NamedTuple):
  """All marks on a picture."""

  done: tuple[Mark, ...] = ()  # the oldest first
  active: int | None = None  # that the next one belongs to; None: a new one

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
  name = str(what.get('act'))
  if 'points' in what:
    return _add(marks, what['points'], size)
  if name == 'undo' and marks.done:
    *rest, last = marks.done
    left = Marks(tuple(rest))
    active = last.entity if last.entity < left.count else None
    return left._replace(active=active), ''
  if name == 'clear':
    return Marks(), ''
  if name == 'new':
    return marks._replace(active=None), ''
  if name in map(str, range(marks.count)):
    return marks._replace(active=int(name)), ''
  return marks, ''


def _add(marks, points, size):
  """`act` of a new mark; nothing for what no browser of ours would send."""
  try:
    shares = np.array(points[:_MOST_POINTS], np.float64).reshape(-1, 2)
  except (TypeError, ValueError, OverflowError, KeyError):
    return marks, ''
  if not len(shares) or not np.isfinite(shares).all():
    return marks, ''
  end = np.array(size[::-1])
  pixels = np.clip(np.floor(shares.clip(-1, 2) * end), 0, end - 1).astype(int)
  entity = marks.count if marks.active is None else marks.active
  mark = Mark(entity, tuple(map(tuple, pixels.tolist())))
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


def _pixels(mark, size):
  """Rows and columns of the pixels that a mark covers."""
  canvas = Image.new('1', size[::-1])
  draw = ImageDraw.Draw(canvas)
  draw.line(mark.points, fill=1)
  draw.point(mark.points, fill=1)
  return np.nonzero(np.array(canvas))


def known(
  marks: Marks, size: tuple[int, int], full: tuple[int, int] | None = None
) -> np.ndarray:
  """Returns what the marks say, as Segmenter.segment takes it.

  Args:
    marks, size: the marks, and height and width of the picture.
    full: those of the photo, if it is larger: of its pixels that are one of the
      picture, that in the middle is marked.

  Returns:
    int32 [h, w]: the number of the entity at each marked pixel, -1 elsewhere.
  """
  full = full or size
  ids = np.full(full, -1, np.int32)
  for mark in marks.done:
    rows, columns = (
      (2 * along + 1) * new // (2 * old)
      for along, old, new in zip(_pixels(mark, size), size, full, strict=True)
    )
    ids[rows, columns] = mark.entity
  return ids


def as_json(ids: np.ndarray) -> list[dict[str, Any]]:
  """Returns what `known` gives as predict's --known reads it of one photo."""
  return [
    {'id': k + 1, 'points': np.argwhere(ids == k)[:, ::-1].tolist()}
    for k in range(ids.max() + 1)
  ]


def letter(entity: int) -> str:
  """Returns what an entity is called on the page: A, ..., Z, A1, ..."""
  return chr(ord('A') + entity % 26) + str(entity // 26 or '')


def picture(
  overlay: np.ndarray, id_map: np.ndarray, confidence: np.ndarray
) -> str:
  """Returns HTML of a picture whose entities are named where one points.

  Args:
    overlay, id_map: uint8 [h, w, 3] and int [h, w], ids 0, ..., K - 1.
    confidence: float [K].
  """
  height, width = id_map.shape
  jpeg = io.BytesIO()
  Image.fromarray(overlay).save(jpeg, 'JPEG', quality=90)
  data = base64.b64encode(jpeg.getvalue()).decode()
  shares = 100 * np.bincount(id_map.ravel()) / id_map.size
  path = lambda pieces: ''.join(
    f'M{"L".join(f"{x} {y}" for x, y in ring.tolist())}z'
    for ring in itertools.chain(*pieces)
  )
  groups = ''.join(
    f'<path class="entity" data-says="Entity {k + 1}: {shares[k]:.1f}% of the '
    f'area, confidence {confidence[k]:.2f}" d="{path(pieces)}"/>'
    for k, pieces in enumerate(polygons.trace(id_map))
  )
  return (
    '<div class="caption">Point at or tap an entity for its area and '
    f'confidence.</div><svg class="entities" style="--w: {width}px" '
    f'viewBox="0 0 {width} {height}"><image width="{width}" height="{height}" '
    f'href="data:image/jpeg;base64,{data}"/>{groups}</svg>'
  )


def colors(marks: Marks, id_map: np.ndarray, overlay: np.ndarray) -> str:
  """Returns CSS that gives each marked entity its colour in the picture.

  Args:
    marks, id_map: int [h, w], the segmentation, and the marks it was made with.
    overlay: uint8 [h, w, 3], as it is shown.
  """
  first = {mark.entity: mark.points[0] for mark in reversed(marks.done)}
  seen = {
    entity: overlay[id_map == id_map[y, x]].mean(axis=0).round().astype(int)
    for entity, (x, y) in first.items()
  }
  return ' '.join(
    '--m{}: rgb({}, {}, {});'.format(entity, *color)
    for entity, color in sorted(seen.items())
  )


def marks_html(marks: Marks) -> str:
  """Draws the marks, and a path for the one that is being drawn."""
  drawn = []
  for mark in marks.done:
    # The same point twice is a dot as wide as the line.
    corners = 'L'.join(
      f'{x + 0.5} {y + 0.5}' for x, y in (mark.points[0], *mark.points)
    )
    x, y = mark.points[0]
    drawn.append(
      f'<g class="mark" style="{_color(mark.entity)}">'
      f'<path class="under" d="M{corners}"/><path d="M{corners}"/>'
      f'<text x="{x + 0.5}" y="{y + 0.5}">{letter(mark.entity)}</text></g>'
    )
  return ''.join(drawn) + _DRAWING


def chips(marks: Marks) -> str:
  """Makes the buttons: what the next click belongs to, and taking back."""

  def button(act, text, title, pressed=None, off=False):
    state = '' if pressed is None else f' aria-pressed="{str(pressed).lower()}"'
    return (
      f'<button data-act="{act}" title="{title}"{state}{" disabled" * off}>'
      f'{text}</button>'
    )

  choices = [
    button(
      k,
      f'<i style="{_color(k)}"></i>{letter(k)}',
      f'The next clicks are on the same entity as {letter(k)}',
      k == marks.active,
    )
    for k in range(marks.count)
  ]
  another = 'The next click is on another entity than all so far'
  choices.append(button('new', '+ New entity', another, marks.active is None))
  off = not marks.done
  back = button('undo', 'Undo', 'Takes the last mark back', off=off)
  back += button('clear', 'Clear all', 'Takes all marks back', off=off)
  return f'{"".join(choices)}<span>{back}</span>'


def _color(entity):
  """Grey until a segmentation has been made with it."""
  return f'--c: var(--m{entity}, #888)'
