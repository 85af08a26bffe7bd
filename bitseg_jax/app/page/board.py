"""The picture that one clicks on: its marks, entities and buttons, as HTML.

Pixels are those of the picture. Parts of the component are filled in
separately, so that a new mark appears before there is a new segmentation.
"""

import base64
import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bitseg_jax.app import polygons

SCRIPT = Path(__file__).with_name('board.js').read_text()
# `marks` stand in the picture.
TEMPLATE = """<div class="board">
<div class="said">${said}</div><div class="chips">${chips}</div>
<div class="told">${told}</div>
<div>${value.replace('</svg>', marks + '</svg>')}</div></div>"""
PARTS = {'said': '', 'chips': '', 'told': '', 'marks': ''}
HINT = (
  'Not as you want it? Click on the picture. Clicks with one letter are one '
  'entity, those with another letter are another.'
)


class Mark(NamedTuple):
  """A click at a pixel."""

  entity: int  # that it belongs to, from 0
  x: int
  y: int


class Marks(NamedTuple):
  """All marks on a picture."""

  done: tuple[Mark, ...] = ()  # the oldest first
  active: int | None = None  # that the next one belongs to; None: a new one

  @property
  def count(self) -> int:
    """Number of the entities that are marked."""
    return 1 + max((mark.entity for mark in self.done), default=-1)


def act(marks: Marks, what: Mapping[str, Any], size: tuple[int, int]) -> Marks:
  """Does what somebody asked for on the page.

  Args:
    marks: those so far.
    what: {'point': [x, y]} of a new mark, as shares of the picture's width and
      height; or {'act': 'new', 'undo', 'clear', or the number of an entity as
      text}.
    size: height and width of the picture.
  """
  name = str(what.get('act'))
  if 'point' in what:
    end = np.array(size[::-1])
    pixel = (np.array(what['point']) * end).clip(0, end - 1).astype(int)
    entity = marks.count if marks.active is None else marks.active
    return Marks((*marks.done, Mark(entity, *pixel.tolist())), entity)
  if name == 'undo' and marks.done:
    *rest, last = marks.done
    left = Marks(tuple(rest))
    again = last.entity < left.count
    return left._replace(active=last.entity if again else None)
  if name == 'clear':
    return Marks()
  if name == 'new':
    return marks._replace(active=None)
  if name in map(str, range(marks.count)):
    return marks._replace(active=int(name))
  return marks


def known(
  marks: Marks, size: tuple[int, int], full: tuple[int, int] | None = None
) -> np.ndarray:
  """Returns what the marks say, as Segmenter.segment takes it.

  Of two at one pixel the later one counts.

  Args:
    marks, size: the marks, and height and width of the picture.
    full: those of the photo, if it is larger: of its pixels that are one of the
      picture, that in the middle is marked.

  Returns:
    int32 [h, w]: the number of the entity at each marked pixel, -1 elsewhere.
  """
  height, width = full or size
  ids = np.full((height, width), -1, np.int32)
  for entity, x, y in marks.done:
    row = (2 * y + 1) * height // (2 * size[0])
    column = (2 * x + 1) * width // (2 * size[1])
    ids[row, column] = entity
  return ids


def as_json(ids: np.ndarray) -> list[dict[str, Any]]:
  """Returns what `known` gives as predict's --known reads it of one photo."""
  return [
    {'id': k + 1, 'points': np.argwhere(ids == k)[:, ::-1].tolist()}
    for k in np.unique(ids[ids >= 0]).tolist()
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


def marks_html(marks: Marks) -> str:
  """Draws the marks: dots with letters."""
  # A line without length is a dot as wide as the line.
  return ''.join(
    f'<g class="mark"><path d="M{x + 0.5} {y + 0.5}h0"/>'
    f'<text x="{x + 0.5}" y="{y + 0.5}">{letter(entity)}</text></g>'
    for entity, x, y in marks.done
  )


def chips(marks: Marks) -> str:
  """Makes the buttons: what the next click belongs to, and taking back."""
  pressed = lambda yes: f'aria-pressed="{str(yes).lower()}"'
  off = 'disabled' if not marks.done else ''
  choices = ''.join(
    f'<button data-act="{k}" {pressed(k == marks.active)}>{letter(k)}</button>'
    for k in range(marks.count)
  )
  return (
    f'{choices}<button data-act="new" {pressed(marks.active is None)}>'
    f'+ New entity</button><span><button data-act="undo" {off}>Undo</button>'
    f'<button data-act="clear" {off}>Clear all</button></span>'
  )
