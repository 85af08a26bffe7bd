"""Pictures for people: segments in colour, contours, doubt, galleries."""

import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from bitseg_jax import IGNORE_ID, metrics, relabel
from bitseg_jax.runs.log import whole_file

Color = tuple[int, int, int]
Cell = tuple[np.ndarray, str]

# From the thirteenth on, each is as far as can be from all before (CIEDE2000),
# among those that are neither the grey of a photo nor the white of contours.
_PALETTE = """
  1f77d0 ff7f0e 2ca02c d62728 ffd92f 8b3fbf 17becf f781bf 8c564b a6d854 1b1f8a
  006d5b 624e00 89004e c4c4ff 62ebc4 ffb19d 274e00 c49d62 763b00 ff00eb 62c4ff
  764e76 898900 ff0062 d8d89d 6262ff 62629d 00ff3b 890027 d889ff 629d76 b16276
  ffb114 ffc4ff 0000ff 76894e b13b00 b1764e ff764e
"""
_MOST_COLORS = 500  # where segments have more neighbours than the palette has
_CLEAR = 25  # CIEDE2000, at which neighbours are told apart at once
_GREY, _HATCH = 52, 32

# Of doubt, from little to much: ColorBrewer's YlOrRd.
_HEAT = np.array([(255, 237, 160), (254, 178, 76), (240, 59, 32), (128, 0, 38)])
_LEAST_SPAN = 0.1  # smaller differences of doubt are not blown up

_MARGIN, _GAP = 12, 6  # pixels of a gallery


def entity_colors(
  id_map: np.ndarray, known: Mapping[int, Color] | None = None
) -> dict[int, Color]:
  """Chooses for every entity a colour clearly different from its neighbours'.

  The graph of regions that touch, if only at a corner, is coloured greedily
  from large to small. Depends on the regions, not on how they are numbered.

  Args:
    id_map: integers [H, W], -1 is ignored.
    known: colours chosen before, such as those of the ground truth. Entities
      keep theirs unless a larger neighbour has the same.

  Returns:
    {id: (red, green, blue)}, each 0 to 255, for the ids in id_map.
  """
  ids, first, ranks, sizes = np.unique(
    id_map, return_index=True, return_inverse=True, return_counts=True
  )
  touching = _touching(ranks)
  palette = np.array([list(bytes.fromhex(c)) for c in _PALETTE.split()])
  most = min(np.diff(touching.indptr).max() + 1, _MOST_COLORS)
  more = np.random.default_rng(0).integers(40, 216, (most, 3))
  palette = np.concatenate([palette, more[len(palette) :]])
  known = known or {}
  colors = np.concatenate([palette, np.reshape([*known.values()], (-1, 3))])
  own = {entity: len(palette) + k for k, entity in enumerate(known)}
  apart = _distances(colors.astype(np.uint8))
  # A colour in use, or late in the palette, is taken if it is clearer.
  cost = 1e-3 * np.arange(len(palette))
  cost += (apart[len(palette) :, : len(palette)] < 1e-3).sum(axis=0)
  nearest = np.full((len(ids), len(colors)), 100.0)
  chosen = {}
  # Known entities first, so that a new one does not take their colours.
  new = ~np.isin(ids, list(known))
  for k in np.lexsort((first, -sizes, new)).tolist():
    entity = int(ids[k])
    if entity == IGNORE_ID:
      continue
    choice = own.get(entity)
    if choice is None or nearest[k, choice] < 1e-3:
      free = nearest[k, : len(palette)]
      gain = np.minimum(free, _CLEAR) - cost
      choice = int(np.where(free < 1e-3, -np.inf, gain).argmax())
      cost[choice] += 1
    chosen[entity] = tuple(colors[choice].tolist())
    near = touching.indices[touching.indptr[k] : touching.indptr[k + 1]]
    nearest[near] = np.minimum(nearest[near], apart[choice])
  return chosen


def _touching(ranks):
  """Which of the regions 0, 1, ... touch, corners included, sparse [K, K]."""
  here, right = ranks[:, :-1], ranks[:, 1:]
  sides = (here, right), (ranks[1:], ranks[:-1])
  sides += (here[1:], right[:-1]), (right[1:], here[:-1])
  pairs = [np.stack([a[a != b], b[a != b]]) for a, b in sides]
  a, b = np.concatenate(pairs, axis=1)
  count = int(ranks.max()) + 1
  graph = csr_array((np.ones(len(a), bool), (a, b)), (count, count))
  return csr_array(graph + graph.T)


def _distances(colors):
  """CIEDE2000 distances of colours to each other: uint8 [N, 3] -> [N, N]."""
  from skimage import color  # takes a tenth of a second

  lab = color.rgb2lab(colors / 255)
  # Lightness counts half: colours are laid over photos, which have their own.
  return color.deltaE_ciede2000(lab[:, None], lab[None], kL=2)


def colorize(
  id_map: np.ndarray, colors: Mapping[int, Color] | None = None
) -> np.ndarray:
  """Paints an id map so that neighbouring entities differ in colour.

  To paint a sample in the colours of the ground truth:
  `colorize(match_ids(truth, sample), entity_colors(truth))`.

  Args:
    id_map: integers [H, W]; -1 becomes hatched dark grey in uint8 [H, W, 3].
    colors: colours to use where they are given, see `entity_colors`.
  """
  chosen = entity_colors(id_map, colors) | {IGNORE_ID: (_GREY,) * 3}
  ranks, ids = relabel.compact(id_map)
  picture = np.array([chosen[i] for i in ids.tolist()], np.uint8)[ranks]
  y, x = np.nonzero(id_map == IGNORE_ID)
  picture[y, x] += ((x + y) % 6 < 2).astype(np.uint8)[:, None] * _HATCH
  return picture


def match_ids(reference: np.ndarray, id_map: np.ndarray) -> np.ndarray:
  """Renames segments after the reference entities they overlap best.

  Segments and entities are matched one to one for the largest sum of IoU.
  Segments without a partner get new ids, above those of the reference. Maps are
  integers [H, W], in which -1 is ignored and stays -1; int32 is returned.
  """
  valid = id_map != IGNORE_ID
  table, entities, segments = metrics.contingency(reference, id_map, valid)
  match = linear_sum_assignment(-metrics.iou_matrix(table))
  names = {
    int(segments[j]): int(entities[i])
    for i, j in zip(*match, strict=True)
    if table[i, j]
  } | {IGNORE_ID: IGNORE_ID}
  free = itertools.count(int(reference.max()) + 1)
  ranks, present = relabel.compact(id_map)
  renamed = [names[i] if i in names else next(free) for i in present.tolist()]
  return np.array(renamed, np.int32)[ranks]


def overlay(
  image: np.ndarray,
  id_map: np.ndarray,
  alpha: float = 0.5,
  colors: Mapping[int, Color] | None = None,
) -> np.ndarray:
  """Lays the colours of an id map over its photo, with thin white contours.

  The photo, uint8 [H, W, 3], turns grey: every hue is that of a segment. The
  rest is as for `colorize`; alpha is the share of the colours in [0, 1].
  """
  picture = (1 - alpha) * _grey(image) + alpha * colorize(id_map, colors)
  # Not quite opaque: a full white line eats the detail of small pictures.
  edge = _edges(id_map)
  picture[edge] = 0.3 * picture[edge] + 0.7 * 255
  return np.round(picture).astype(np.uint8)


def contours(image: np.ndarray, id_map: np.ndarray) -> np.ndarray:
  """Draws borders in yellow with dark sides, to be seen on white and on black.

  Takes and returns uint8 [H, W, 3], with the id map [H, W].
  """
  edge, picture = _edges(id_map), image.copy()
  picture[ndimage.binary_dilation(edge, np.ones((3, 3)))] //= 3
  picture[edge] = 255, 221, 51
  return picture


def _edges(id_map):
  """bool [H, W], where the id is another than to the left or above."""
  edge = np.zeros(id_map.shape, bool)
  edge[:, 1:] |= id_map[:, 1:] != id_map[:, :-1]
  edge[1:] |= id_map[1:] != id_map[:-1]
  return edge


def _grey(image):
  return np.asarray(Image.fromarray(image).convert('L'))[..., None]


def doubt(image: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
  """Paints where in a photo a segmentation is most uncertain, above a scale.

  How much samples differ depends on the photo more than on the place in it. So
  the scale is the photo's own: from the median, below which the photo stays
  pale, to its most uncertain hundredth, which is darkest red. For uint8
  [H, W, 3] and float [H, W] in [0, 1] it returns uint8 [H + some, W, 3].
  """
  height, width = uncertainty.shape
  low, high = np.percentile(uncertainty, (50, 99))
  high = max(high, low + _LEAST_SPAN)
  share = np.clip((uncertainty - low) / (high - low), 0, 1)
  picture = _heat(0.45 * _grey(image) + 0.55 * 255, share)
  size = max(11, width // 40)  # of text, to be read where it is shrunk
  bar = _heat(220.0, np.linspace(0, 1, width)[None].repeat(size // 2, axis=0))
  text = np.full((3 * size // 2, width, 3), 255, np.uint8)
  page = Image.fromarray(np.concatenate([picture, bar, text]))
  draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=size)
  for x, value, anchor in (2, low, 'lm'), (width - 2, high, 'rm'):
    at = x, height + 5 * size // 4
    draw.text(at, f'{value:.2f}', fill='#222', font=font, anchor=anchor)
  return np.asarray(page)


def _heat(below, share):
  """Lays the colours of shares [h, w] over grey, the larger the more opaque."""
  stops = np.linspace(0, 1, len(_HEAT))
  heat = np.stack([np.interp(share, stops, c) for c in _HEAT.T], axis=-1)
  opacity = np.clip(1.3 * share, 0, 0.9)[..., None]
  return np.round((1 - opacity) * below + opacity * heat).astype(np.uint8)


def gallery(
  rows: Sequence[Sequence[Cell]],
  path: str | os.PathLike,
  titles: Sequence[str] = (),
  cell_size: int = 180,
) -> None:
  """Writes a PNG with a grid of pictures, their captions and column titles.

  Args:
    rows: lists of (uint8 [h, w, 3] or [h, w], caption); sizes may differ, rows
      may be shorter than others, a caption may be empty. Pictures are scaled to
      cell_size along their longest side, flat colours without blur.
    path: the file to write; missing folders are made.
    titles, cell_size: text above the columns, from the left; pixels.
  """
  size = max(14, cell_size // 20)  # of text
  line, step = 3 * size // 2, cell_size + _GAP
  rows = [
    [(_scale(picture, cell_size), text) for picture, text in row]
    for row in rows
  ]
  heights = [
    max(picture.height for picture, _ in row)
    + line * any(text for _, text in row)
    + _GAP
    for row in rows
  ]
  top = _MARGIN + (line + _GAP) * bool(titles)
  width = max(map(len, rows)) * step - _GAP + 2 * _MARGIN
  height = top + sum(heights) - _GAP + _MARGIN
  page = Image.new('RGB', (width, height), 'white')
  draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=size)

  def write(column, y, text):
    shown = text
    while draw.textlength(shown, font) > cell_size:
      text = text[:-1]
      shown = text + '...'
    x = _MARGIN + column * step + cell_size // 2
    draw.text((x, y), shown, fill='#222', font=font, anchor='ma')

  for column, title in enumerate(titles):
    write(column, _MARGIN, title)
  for row, row_height in zip(rows, heights, strict=True):
    for column, (picture, text) in enumerate(row):
      left = _MARGIN + column * step + (cell_size - picture.width) // 2
      page.paste(picture, (left, top))
      write(column, top + picture.height + size // 4, text)
    top += row_height
  save_png(np.asarray(page), path)


def _scale(picture, size):
  """Picture with its longest side at size; enlarged flat colours stay crisp."""
  image = Image.fromarray(picture).convert('RGB')
  flat = max(image.size) < size and image.getcolors(maxcolors=256)
  how = Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS
  factor = size / max(image.size)
  return image.resize([max(1, round(n * factor)) for n in image.size], how)


def save_png(picture: np.ndarray, path: str | os.PathLike) -> None:
  """Writes a picture, uint8 or uint16, that appears whole or not at all."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with whole_file(path, 'wb') as file:
    # Twice as fast as level 6, and a fifteenth larger.
    Image.fromarray(picture).save(file, format='PNG', compress_level=4)


def new_figure() -> Any:
  """Makes a figure that keeps titles, labels and legends inside of itself."""
  from matplotlib.figure import Figure  # takes half a second

  return Figure(layout='constrained')


def save_figure(figure: Any, path: str | os.PathLike) -> None:
  """Writes a figure as its name ends; it appears whole or not at all."""
  import matplotlib

  kind = pathlib.Path(path).suffix.removeprefix('.')
  # Text can be searched and edited.
  as_text = {'svg.fonttype': 'none', 'pdf.fonttype': 42}
  with matplotlib.rc_context(as_text), whole_file(path, 'wb') as file:
    figure.savefig(file, format=kind, dpi=130)
