"""The picture that one clicks on: its entities, the marks, and the buttons.

All of it is one component of the page. Its parts are filled in separately, so
that a new mark appears before there is a new segmentation.
"""

import base64
import io

import numpy as np
from PIL import Image

from bitseg_jax.app.page.marks import Marks, letter
from bitseg_jax.evaluation.pictures import Color

# `marks` stand in the picture and have the colours of its entities.
TEMPLATE = """<div class="board" style="${colors}">
<div class="said">${said}</div><div class="chips">${chips}</div>
<div class="busy">${busy}</div>
<div>${value.replace('</svg>', marks + '</svg>')}</div></div>"""

# What follows the mouse while one draws.
_DRAWING = '<path class="drawing" d=""/>'
PARTS = {'colors': '', 'said': '', 'chips': '', 'busy': '', 'marks': _DRAWING}

# A mouse clicks or draws. A finger taps; moving, it scrolls the page.
SCRIPT = """
let points = null;
const share = (event) => {
  const box = element.querySelector('.entities image').getBoundingClientRect();
  return [(event.clientX - box.left) / box.width,
          (event.clientY - box.top) / box.height];
};
const draw = () => {
  const {width, height} = element.querySelector('.entities image').attributes;
  element.querySelector('.drawing').setAttribute('d', points.map(
    ([x, y], k) => (k ? 'L' : 'M') + x * width.value + ' ' + y * height.value
  ).join(''));
};
element.addEventListener('pointerdown', (event) => {
  points = null;
  if (event.button || !event.target.closest('.entities')) return;
  const at = share(event);
  if (Math.min(...at) >= 0 && Math.max(...at) < 1) points = [at];
});
element.addEventListener('pointermove', (event) => {
  if (!points) return;
  const at = share(event), last = points[points.length - 1];
  const box = element.querySelector('.entities image').getBoundingClientRect();
  const moved = Math.hypot(
    (at[0] - last[0]) * box.width, (at[1] - last[1]) * box.height);
  if (moved < (points.length > 1 ? 3 : 8)) return;  // a hand is never still
  if (event.pointerType === 'touch') points = null;
  else { points.push(at); draw(); }
});
element.addEventListener('pointerup', () => {
  if (!points) return;
  trigger('select', {points});
  element.querySelector('.drawing').setAttribute('d', '');
  points = null;
});
element.addEventListener('pointercancel', () => { points = null; });
element.addEventListener('dragstart', (event) => event.preventDefault());
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('select', {act: button.dataset.act});
});
"""

# Labels by CSS alone: a tap does what a mouse does.
CSS = """
.board .said { margin-bottom: 6px }
.board .chips {
  display: flex; flex-wrap: wrap; gap: 6px; align-items: center;
}
.board .chips button {
  display: inline-flex; align-items: center; gap: 6px; min-height: 36px;
  min-width: 44px; padding: 2px 10px; border-radius: 8px; cursor: pointer;
  margin: 0; font: inherit;
  border: 2px solid var(--border-color-primary); color: var(--body-text-color);
  background: var(--background-fill-primary); justify-content: center;
}
.board .chips button[aria-pressed=true] {
  border-color: var(--color-accent); background: var(--color-accent-soft);
}
.board .chips button:disabled { opacity: .4; cursor: default }
.board .chips i {
  width: 14px; height: 14px; border-radius: 50%; background: var(--c);
  box-shadow: 0 0 0 1px #fff, 0 0 0 2px #000;
}
.board .chips span { margin-left: auto; display: flex; gap: 6px }
/* As high as its line, for the picture not to move when there is none. */
.board .busy { min-height: 38px; padding-top: 4px }
.board .busy progress { height: 4px !important; margin-top: 2px }
.entities {
  width: 100%; max-height: 75vh; display: block; cursor: crosshair;
  touch-action: manipulation; user-select: none; -webkit-user-select: none;
}
.entities .entity path { fill: #fff; fill-opacity: 0 }
.entities .entity:hover path { fill-opacity: .3 }
.entities text {
  fill: currentColor; font-family: sans-serif; font-size: calc(var(--w) / 24);
}
.entities .entity text, .entities:has(.entity:hover) .hint {
  visibility: hidden;
}
.entities .entity:hover text { visibility: visible }
.entities .mark { pointer-events: none; filter: drop-shadow(0 0 1px #000) }
.entities .mark path, .entities .drawing {
  fill: none; stroke: var(--c, #fff); stroke-width: calc(var(--w) / 20);
  stroke-linecap: round; stroke-linejoin: round;
}
.entities .drawing { pointer-events: none; stroke-opacity: .7 }
.entities .mark .under { stroke: #fff; stroke-width: calc(var(--w) / 16) }
.entities .mark text {
  font-size: calc(var(--w) / 30); font-weight: 700; text-anchor: middle;
  dominant-baseline: central; fill: #fff; stroke: #000; paint-order: stroke;
  stroke-width: calc(var(--w) / 200);
}
@media (min-width: 641px) {
  .entities text { font-size: calc(var(--w) / 50) }
  .entities .mark path, .entities .drawing {
    stroke-width: calc(var(--w) / 40);
  }
  .entities .mark .under { stroke-width: calc(var(--w) / 32) }
  .entities .mark text { font-size: calc(var(--w) / 55) }
}
"""

HINT = (
  'Not as you want it? Click on the picture. Clicks with one letter are one '
  'entity, those with another letter are another; a mouse can also draw.'
)


def picture(
  overlay: np.ndarray, id_map: np.ndarray, confidence: np.ndarray
) -> str:
  """Makes the HTML of a picture whose entities are named where one points.

  Args:
    overlay: uint8 [h, w, 3], the segmentation in colours over the photo.
    id_map: int [h, w], ids 0, ..., K - 1.
    confidence: float [K].

  Returns:
    HTML that needs no other file.
  """
  height, width = id_map.shape
  jpeg = io.BytesIO()
  Image.fromarray(overlay).save(jpeg, 'JPEG', quality=90)
  data = base64.b64encode(jpeg.getvalue()).decode()
  line = width / 18
  # Above the picture, where it is seen without scrolling.
  where = f'x="0" y="{-0.4 * line:.1f}"'
  shares = np.bincount(id_map.ravel()) / id_map.size
  groups = [
    f'<g class="entity"><path d="{path}"/><text {where}>Entity {k + 1}: '
    f'{100 * shares[k]:.1f}% of the area, '
    f'confidence {confidence[k]:.2f}</text></g>'
    for k, path in _paths(id_map).items()
  ]
  return (
    f'<svg class="entities" style="--w: {width}px" '
    f'viewBox="0 {-line:.1f} {width} {height + line:.1f}">'
    f'<image width="{width}" height="{height}" '
    f'href="data:image/jpeg;base64,{data}"/>'
    f'<text class="hint" {where}>Point at or tap an entity for its area and '
    f'confidence.</text>{"".join(groups)}</svg>'
  )


def colors(
  marks: Marks, id_map: np.ndarray, of_entity: dict[int, Color]
) -> str:
  """Returns CSS that gives each marked entity its colour in the picture.

  Args:
    marks: those that the segmentation was made with.
    id_map: int [h, w], the segmentation.
    of_entity: the colour of each of its ids.
  """
  found = {}
  for mark in marks.done:
    x, y = mark.points[0]
    found[mark.entity] = of_entity[int(id_map[y, x])]
  return ' '.join(
    '--m{}: rgb({}, {}, {});'.format(entity, *color)
    for entity, color in found.items()
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
  choices = [
    f'<button data-act="{k}" aria-pressed="{_truth(k == marks.active)}" '
    f'title="The next clicks are on the same entity as {letter(k)}">'
    f'<i style="{_color(k)}"></i>{letter(k)}</button>'
    for k in range(marks.count)
  ]
  new = _truth(marks.active is None)
  off = '' if marks.done else ' disabled'
  return (
    f'{"".join(choices)}<button data-act="new" aria-pressed="{new}" title="The '
    'next click is on another entity than all so far">+ New entity</button>'
    f'<span><button data-act="undo"{off}>Undo</button>'
    f'<button data-act="clear"{off}>Clear all</button></span>'
  )


def _color(entity):
  """Grey until a segmentation has been made with it."""
  return f'--c: var(--m{entity}, #888)'


def _truth(value):
  return 'true' if value else 'false'


def _paths(id_map):
  """{id: SVG path of its pixels}, a box for each run in a row."""
  width = id_map.shape[1]
  flat = id_map.ravel()
  begins = np.arange(flat.size) % width == 0
  begins[1:] |= flat[1:] != flat[:-1]
  starts = np.flatnonzero(begins)
  lengths = np.diff(starts, append=flat.size)
  paths = {}
  for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
    y, x = divmod(start, width)
    box = f'M{x} {y}h{length}v1h-{length}z'
    paths.setdefault(int(flat[start]), []).append(box)
  return {k: ''.join(paths[k]) for k in sorted(paths)}
