"""Pictures for people: segments in colour, contours, doubt, galleries."""

import functools
import itertools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from bitseg_jax import IGNORE_ID, metrics, relabel
from bitseg_jax.runs.log import whole_file

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Color = tuple[int, int, int]
Cell = tuple[np.ndarray, str]
PLOT_FORMATS = ('png', 'pdf', 'svg')

_BASE_COLORS = """
  1f77d0 ff7f0e 2ca02c d62728 ffd92f 8b3fbf 17becf f781bf 8c564b a6d854 1b1f8a
  006d5b
"""
_NUM_COLORS = 40  # more than people tell apart, enough to leave a choice
_CLEAR = 25  # CIEDE2000, at which neighbours are told apart at once
_GREY, _HATCH = 52, 32

# Of doubt, from little to much: ColorBrewer's YlOrRd.
_HEAT = np.array([(255, 237, 160), (254, 178, 76), (240, 59, 32), (128, 0, 38)])
_LEAST_SPAN = 0.1  # smaller differences of doubt are not blown up

_MARGIN, _GAP = 12, 6  # pixels of a gallery


@functools.cache
def _palette(count):
  """uint8 [count, 3]: each as far as can be from all before."""
  from skimage import color  # takes a tenth of a second

  levels = np.linspace(0, 255, 14)
  grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
  light, *chroma = color.rgb2lab(grid / 255).T
  # Neither the grey of the photo below nor the white of contours.
  vivid = (light > 25) & (light < 88) & (np.hypot(*chroma) > 28)
  base = [list(bytes.fromhex(name)) for name in _BASE_COLORS.split()]
  colors = np.concatenate([base, np.round(grid[vivid])]).astype(np.uint8)
  chosen = list(range(len(base)))
  gaps = _distances(colors[chosen], colors).min(axis=0)
  while len(chosen) < min(count, len(colors)):
    chosen.append(int(gaps.argmax()))
    gaps = np.minimum(gaps, _distances(colors[chosen[-1:]], colors)[0])
  return colors[chosen]


def _distances(some, others):
  """CIEDE2000 distances of colours: uint8 [N, 3], [M, 3] -> [N, M]."""
  from skimage import color

  some, others = (color.rgb2lab(np.array(c) / 255.0) for c in (some, others))
  pairs = np.broadcast_arrays(some[:, None], others[None])
  # Lightness counts half: colours are laid over photos, which have their own.
  return color.deltaE_ciede2000(*pairs, kL=2)


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

  Raises:
    ValueError: id_map is not two-dimensional or not of integers.
  """
  ids, order, neighbors = _regions(id_map)
  known = known or {}
  most = max((len(near) for near in neighbors), default=0)
  palette = _palette(max(_NUM_COLORS, 2 ** most.bit_length()))
  given = np.array(list(known.values()), np.uint8).reshape(-1, 3)
  colors = np.concatenate([palette, given])
  own = {entity: len(palette) + k for k, entity in enumerate(known)}
  apart = _distances(colors, colors)
  # A colour in use, or late in the palette, is taken if it is clearer.
  cost = 1e-3 * np.arange(len(palette))
  cost += (apart[len(palette) :, : len(palette)] < 1e-3).sum(axis=0)
  cost[_NUM_COLORS:] += 1e3  # so many are hard to tell apart
  nearest = np.full((len(ids), len(colors)), 100.0)
  chosen = {}
  # Known entities first, so that a new one does not take their colours.
  for k in sorted(order, key=lambda k: int(ids[k]) not in known):
    choice = own.get(int(ids[k]))
    if choice is None or nearest[k, choice] < 1e-3:
      free = nearest[k, : len(palette)]
      gain = np.minimum(free, _CLEAR) - cost
      choice = int(np.where(free < 1e-3, -np.inf, gain).argmax())
      cost[choice] += 1
    chosen[int(ids[k])] = tuple(colors[choice].tolist())
    near = list(neighbors[k])
    nearest[near] = np.minimum(nearest[near], apart[choice])
  return {entity: chosen[entity] for entity in sorted(chosen)}


def _regions(id_map):
  """Ids present, their indices from large to small, and who touches whom."""
  id_map = np.asarray(id_map)
  if id_map.ndim != 2 or id_map.dtype.kind not in 'iu':
    raise ValueError(
      f'an id map must be integers [H, W], but is {id_map.dtype} {id_map.shape}'
    )
  ranks, ids = relabel.compact(id_map)
  ranks = ranks.astype(np.int64)  # for the numbers of pairs
  sizes, first = np.bincount(ranks.ravel()), np.zeros(len(ids), int)
  first[ranks.ravel()[::-1]] = np.arange(ranks.size)[::-1]  # the last one stays
  here, right = ranks[:, :-1], ranks[:, 1:]
  sides = (here, right), (ranks[1:], ranks[:-1])
  sides += (here[1:], right[:-1]), (right[1:], here[:-1])
  pairs = np.concatenate([(a * len(ids) + b)[a != b] for a, b in sides])
  neighbors = [set() for _ in ids]
  for a, b in zip(*np.divmod(np.unique(pairs), len(ids)), strict=True):
    if ids[a] != IGNORE_ID and ids[b] != IGNORE_ID:
      neighbors[a].add(int(b))
      neighbors[b].add(int(a))
  order = [int(k) for k in np.lexsort((first, -sizes)) if ids[k] != IGNORE_ID]
  return ids, order, neighbors


def colorize(
  id_map: np.ndarray, colors: Mapping[int, Color] | None = None
) -> np.ndarray:
  """Paints an id map so that neighbouring entities differ in colour.

  To paint a sample in the colours of the ground truth:
  `colorize(match_ids(truth, sample), entity_colors(truth))`.

  Args:
    id_map: integers [H, W]; -1 becomes hatched dark grey.
    colors: colours to use where they are given, see `entity_colors`.

  Returns:
    uint8 [H, W, 3].
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
  Segments without a partner get new ids, above those of the reference.

  Args:
    reference: integers [H, W], -1 is ignored.
    id_map: integers [H, W], -1 stays -1.

  Returns:
    int32 [H, W], the same segments under other ids.

  Raises:
    ValueError: shapes differ or ids are not integers.
  """
  table, entities, segments = metrics.contingency(
    reference, id_map, id_map != IGNORE_ID
  )
  match = linear_sum_assignment(-metrics.iou_matrix(table))
  names = {
    int(segments[j]): int(entities[i])
    for i, j in zip(*match, strict=True)
    if table[i, j]
  } | {IGNORE_ID: IGNORE_ID}
  free = itertools.count(int(np.max(reference, initial=-1)) + 1)
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

  The photo turns grey, so that every hue is that of a segment.

  Args:
    image: uint8 [H, W, 3]; of another size than id_map it is refused.
    id_map, colors: as in `colorize`.
    alpha: share of the colours in [0, 1].

  Returns:
    uint8 [H, W, 3].
  """
  edge = _edges(image, id_map)
  if not 0 <= alpha <= 1:
    raise ValueError(f'alpha must be in [0, 1], but is {alpha}')
  picture = (1 - alpha) * _grey(image) + alpha * colorize(id_map, colors)
  # Not quite opaque: a full white line eats the detail of small pictures.
  picture[edge] = 0.3 * picture[edge] + 0.7 * 255
  return np.round(picture).astype(np.uint8)


def contours(image: np.ndarray, id_map: np.ndarray) -> np.ndarray:
  """Draws borders in yellow with dark sides, to be seen on white and on black.

  Args:
    image, id_map: as in `overlay`.

  Returns:
    uint8 [H, W, 3].
  """
  edge = _edges(image, id_map)
  picture = image.copy()
  beside = ndimage.binary_dilation(edge, np.ones((3, 3)))
  picture[beside] = picture[beside] // 3
  picture[edge] = 255, 221, 51
  return picture


def _edges(image, id_map):
  """bool [H, W], where the id is another than to the left or above."""
  if image.dtype != np.uint8 or image.shape != (*id_map.shape, 3):
    raise ValueError(
      f'image must be uint8 {(*id_map.shape, 3)} to fit its id map, but is '
      f'{image.dtype} {image.shape}; resize one to the other'
    )
  edge = np.zeros(id_map.shape, bool)
  edge[:, 1:] |= id_map[:, 1:] != id_map[:, :-1]
  edge[1:] |= id_map[1:] != id_map[:-1]
  return edge


def _grey(image):
  return np.asarray(Image.fromarray(image).convert('L'))[..., None]


def doubt(image: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
  """Paints where in a photo a segmentation is most uncertain, above a scale.

  How much samples differ depends on the photo more than on the place in it. So
  the scale is the photo's own: the surer half of it stays as a pale photo, and
  its most uncertain hundredth is darkest red.

  Args:
    image: uint8 [H, W, 3].
    uncertainty: float [H, W] in [0, 1].

  Returns:
    uint8 [H + some, max(W, 100), 3]; pixels of the photo are where they were.

  """
  low, high = np.min(uncertainty), np.max(uncertainty)
  # Means of float32 shares may end a rounding error above 1.
  if not (low >= -1e-5 and high <= 1 + 1e-5):
    raise ValueError(
      f'uncertainty must be in [0, 1], but spans {low:g} to {high:g}'
    )
  if image.shape[:2] != uncertainty.shape:
    raise ValueError(f'uncertainty of {uncertainty.shape} for {image.shape}')
  low, high = np.percentile(uncertainty, (50, 99))
  high = max(high, low + _LEAST_SPAN)
  share = np.clip((uncertainty - low) / (high - low), 0, 1)
  picture = _heat(0.45 * _grey(image) + 0.55 * 255, share)
  height, width = uncertainty.shape[0], max(uncertainty.shape[1], 100)
  size = max(11, round(width / 40))  # of text, to be read where it is shrunk
  page = Image.new('RGB', (width, height + 2 * size), 'white')
  page.paste(Image.fromarray(picture), (0, 0))
  draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=size)
  ends, middle = [f'{low:.2f}', f'{high:.2f}'], height + size
  if width >= 20 * size:
    ends = [f'median {ends[0]}', f'top 1% {ends[1]}']
  start, stop = size // 2, width - size // 2
  draw.text((start, middle), ends[0], fill='#222', font=font, anchor='lm')
  draw.text((stop, middle), ends[1], fill='#222', font=font, anchor='rm')
  start += round(size / 2 + draw.textlength(ends[0], font))
  stop -= round(size / 2 + draw.textlength(ends[1], font))
  shares = np.linspace(0, 1, stop - start)[None].repeat(size, axis=0)
  bar = _heat(np.full((*shares.shape, 1), 220.0), shares)
  page.paste(Image.fromarray(bar), (start, middle - size // 2))
  return np.asarray(page)


def _heat(below, share):
  """Lays the colours of shares [h, w] over [h, w, 1], the more the more."""
  levels, stops = np.linspace(0, 1, 256), np.linspace(0, 1, len(_HEAT))
  heat = np.stack([np.interp(levels, stops, c) for c in _HEAT.T], axis=-1)
  opacity = np.clip(1.3 * levels, 0, 0.9)[:, None]
  level = np.round(255 * share).astype(np.uint8)
  picture = (1 - opacity)[level] * below + (opacity * heat)[level]
  return np.round(picture).astype(np.uint8)


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

  Raises:
    ValueError: there is no picture, a picture is not uint8, or there are more
      titles than columns.
  """
  columns = max((len(row) for row in rows), default=0)
  if not columns:
    raise ValueError('the gallery has no pictures; give at least one cell')
  if len(titles) > columns:
    raise ValueError(f'{len(titles)} titles for {columns} columns of pictures')
  rows = [
    [(_scale(np.asarray(picture), cell_size), text) for picture, text in row]
    for row in rows
  ]
  size = max(14, cell_size // 20)  # of text
  line = 3 * size // 2
  heights = [
    max((picture.height for picture, _ in row), default=0)
    + line * any(text for _, text in row)
    for row in rows
  ]
  step, top = cell_size + _GAP, _MARGIN + (line + _GAP) * bool(titles)
  width = columns * step - _GAP + 2 * _MARGIN
  height = top + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN
  page = Image.new('RGB', (width, height), 'white')
  draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=size)

  def write(column, y, text):
    shown = text
    while text and draw.textlength(shown, font) > cell_size:
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
    top += row_height + _GAP
  save_png(np.asarray(page), path)


def _scale(picture, size):
  """Picture with its longest side at size; enlarged flat colours stay crisp."""
  if picture.dtype != np.uint8:
    raise ValueError(f'pictures must be uint8, but one is {picture.dtype}')
  image = Image.fromarray(picture).convert('RGB')
  factor = size / max(image.size)
  target = tuple(max(1, round(side * factor)) for side in image.size)
  if factor > 1 and image.getcolors(maxcolors=256):
    whole = math.ceil(factor)
    enlarged = image.width * whole, image.height * whole
    image = image.resize(enlarged, Image.Resampling.NEAREST)
  return image.resize(target, Image.Resampling.LANCZOS)


def save_png(picture: np.ndarray, path: str | os.PathLike) -> None:
  """Writes a picture, uint8 or uint16, that appears whole or not at all."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with whole_file(path, 'wb') as file:
    # Twice as fast as level 6, and a fifteenth larger.
    Image.fromarray(picture).save(file, format='PNG', compress_level=4)


def new_figure() -> 'Figure':
  """Makes a figure that keeps titles, labels and legends inside of itself."""
  from matplotlib.figure import Figure  # takes half a second

  return Figure(layout='constrained')


def save_figure(figure: 'Figure', path: str | os.PathLike) -> None:
  """Writes a figure that appears whole or not at all.

  Text in PDF and SVG stays text, which can be searched and edited.

  Raises:
    ValueError: the path does not end in one of PLOT_FORMATS.
  """
  kind = pathlib.Path(path).suffix.removeprefix('.')
  if kind not in PLOT_FORMATS:
    raise ValueError(f'{path}: plots are written as {", ".join(PLOT_FORMATS)}')
  import matplotlib

  as_text = {'svg.fonttype': 'none', 'pdf.fonttype': 42}
  with matplotlib.rc_context(as_text), whole_file(path, 'wb') as file:
    figure.savefig(file, format=kind, dpi=130)
