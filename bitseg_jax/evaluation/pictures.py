"""Pictures for people: id maps in colour, overlays, uncertainty, galleries."""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.optimize import linear_sum_assignment

from bitseg_jax import IGNORE_ID, metrics, relabel
from bitseg_jax.evaluation.colors import distance_to, make_palette
from bitseg_jax.runs.log import whole_file

Color = tuple[int, int, int]
Cell = tuple[np.ndarray, str]

_NUM_COLORS = 40  # more than people tell apart, enough to leave a choice
_CLEAR = 0.25  # neighbours that far apart are told apart at once
_REUSE = 0.1  # how much nearer a colour may be if it is not in use yet
_GREY, _HATCH = 52, 84

_MARGIN = 12
_GAP = 6
_TITLE_SIZE = 16
_CAPTION_SIZE = 14
_TITLE_HEIGHT = 26
_CAPTION_HEIGHT = 22
_MOST_HEIGHT = 1200  # pixels of a gallery in one column


def entity_colors(
  id_map: np.ndarray, known: Mapping[int, Color] | None = None
) -> dict[int, Color]:
  """Chooses a colour for every entity that its neighbours do not have.

  Depends on the regions only, not on how they are numbered. Regions that touch
  at a corner are neighbours too.

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
  palette = make_palette(max(_NUM_COLORS, 2 ** most.bit_length()))
  # How far each colour is from those around each entity.
  distance = np.full((len(ids), len(palette)), 1.0)
  cost = _REUSE * sum(distance_to(palette, c) < 1e-3 for c in known.values())
  cost = cost + 1e-4 * np.arange(len(palette))
  # So many are hard to tell apart: only where nothing else is left.
  cost[_NUM_COLORS:] += 10
  colors = {}
  # Known entities first, so that a new one does not take their colours.
  for k in sorted(order, key=lambda k: int(ids[k]) not in known):
    near = list(neighbors[k])
    color = known.get(int(ids[k]))
    if color is None or any(colors.get(j) == color for j in near):
      # Beyond a clear difference, more of it is no gain.
      gain = np.minimum(distance[k], _CLEAR) - cost
      choice = int(np.where(distance[k] < 1e-3, -np.inf, gain).argmax())
      color = tuple(palette[choice].tolist())
      cost[choice] += _REUSE
    colors[k] = color
    distance[near] = np.minimum(distance[near], distance_to(palette, color))
  return {int(ids[k]): colors[k] for k in sorted(colors)}


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

  Raises:
    ValueError: id_map is not two-dimensional or not of integers.
  """
  chosen = entity_colors(id_map, colors)
  y, x = np.indices(id_map.shape)
  hatched = np.where((x + y) % 6 < 2, _HATCH, _GREY)
  picture = np.repeat(hatched[..., None], 3, axis=-1).astype(np.uint8)
  labelled = id_map != IGNORE_ID
  ranks, ids = relabel.compact(id_map[labelled])
  table = np.array([chosen[i] for i in ids.tolist()], np.uint8).reshape(-1, 3)
  picture[labelled] = table[ranks]
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
  match = linear_sum_assignment(metrics.iou_matrix(table), maximize=True)
  names = {
    int(segments[j]): int(entities[i])
    for i, j in zip(*match, strict=True)
    if table[i, j]
  }
  ranks, present = relabel.compact(id_map)
  names[IGNORE_ID] = IGNORE_ID
  free = int(np.max(reference, initial=-1)) + 1
  for segment in present.tolist():
    if segment not in names:
      names[segment] = free
      free += 1
  renamed = np.array([names[i] for i in present.tolist()], np.int32)
  return renamed[ranks]


def overlay(
  image: np.ndarray,
  id_map: np.ndarray,
  alpha: float = 0.5,
  colors: Mapping[int, Color] | None = None,
) -> np.ndarray:
  """Lays the colours of an id map over its photo, with thin white contours.

  Args:
    image: uint8 [H, W, 3].
    id_map: integers [H, W]; -1 becomes hatched dark grey.
    alpha: share of the colours in [0, 1]; 0 leaves contours alone.
    colors: colours to use where they are given, see `entity_colors`.

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: image and id_map do not fit each other, or alpha is not a share.
  """
  if image.dtype != np.uint8 or image.shape != (*id_map.shape, 3):
    raise ValueError(
      f'image must be uint8 {(*id_map.shape, 3)} to fit its id map, but is '
      f'{image.dtype} {image.shape}; resize one to the other'
    )
  if not 0 <= alpha <= 1:
    raise ValueError(f'alpha must be in [0, 1], but is {alpha}')
  picture = (1 - alpha) * image + alpha * colorize(id_map, colors)
  edge = np.zeros(id_map.shape, bool)
  edge[:, 1:] |= id_map[:, 1:] != id_map[:, :-1]
  edge[1:] |= id_map[1:] != id_map[:-1]
  # Not quite opaque: a full white line eats the detail of small pictures.
  picture[edge] = 0.3 * picture[edge] + 0.7 * 255
  return np.round(picture).astype(np.uint8)


def uncertainty_map(uncertainty: np.ndarray) -> np.ndarray:
  """Paints uncertainty from black (certain) over purple to yellow (uncertain).

  Args:
    uncertainty: float [H, W] in [0, 1].

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: values are outside of [0, 1] or nan.
  """
  low, high = np.min(uncertainty), np.max(uncertainty)
  # Means of float32 shares may end a rounding error above 1.
  if not (low >= -1e-5 and high <= 1 + 1e-5):
    raise ValueError(
      f'uncertainty must be in [0, 1], but spans {low:g} to {high:g}'
    )
  import matplotlib  # takes a quarter of a second

  colormap = matplotlib.colormaps['inferno']
  shares = np.clip(np.asarray(uncertainty, np.float64), 0, 1)
  return colormap(shares, bytes=True)[..., :3]


def gallery(
  rows: Sequence[Sequence[Cell]],
  path: str | os.PathLike,
  titles: Sequence[str] = (),
  cell_size: int = 180,
) -> None:
  """Writes a PNG with a grid of pictures, their captions and column titles.

  Pictures are scaled to cell_size along their longest side, flat colours
  without blur. Rows that together are too high for a screen are put into two
  columns: the second half stands to the right of the first. The file
  appears whole or not at all; missing folders are made.

  Args:
    rows: lists of (uint8 [h, w, 3] or [h, w], caption); sizes may differ, rows
      may be shorter than others, a caption may be empty.
    path: the file to write.
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
  scaled = [
    [(_scale(np.asarray(picture), cell_size), text) for picture, text in row]
    for row in rows
  ]
  half = -(-len(rows) // 2)
  high = _height(scaled, titles) > _MOST_HEIGHT and len(rows) > 1
  parts = [scaled[:half], scaled[half:]] if high else [scaled]
  width = columns * (cell_size + _GAP) - _GAP
  step = width + 2 * _MARGIN
  height = max(_height(part, titles) for part in parts)
  page = Image.new('RGB', (len(parts) * step, height), 'white')
  for k, part in enumerate(parts):
    _draw_rows(page, part, k * step + _MARGIN, titles, cell_size)
  save_png(np.asarray(page), path)


def save_png(picture: np.ndarray, path: str | os.PathLike) -> None:
  """Writes a picture, uint8 or uint16, that appears whole or not at all."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with whole_file(path, 'wb') as file:
    Image.fromarray(picture).save(file, format='PNG')


def _row_height(row):
  """Pixels of a row of scaled pictures with its captions."""
  pictures = max((picture.height for picture, _ in row), default=0)
  return pictures + _CAPTION_HEIGHT * any(text for _, text in row)


def _height(rows, titles):
  """Pixels of a gallery of rows under each other."""
  gaps = _GAP * (len(rows) - 1) + 2 * _MARGIN + _TITLE_HEIGHT * bool(titles)
  return sum(map(_row_height, rows)) + gaps


def _draw_rows(page, rows, left, titles, cell_size):
  """Draws titles and, under each other, rows of scaled pictures."""
  draw, top = ImageDraw.Draw(page), _MARGIN
  step, middle = cell_size + _GAP, left + cell_size // 2
  for k, title in enumerate(titles):
    where = middle + k * step, top
    _write(draw, where, title, _TITLE_SIZE, '#111111', cell_size)
  top += _TITLE_HEIGHT * bool(titles)
  for row in rows:
    for k, (picture, text) in enumerate(row):
      beside = (cell_size - picture.width) // 2
      page.paste(picture, (left + k * step + beside, top))
      where = middle + k * step, top + picture.height + 3
      _write(draw, where, text, _CAPTION_SIZE, '#444444', cell_size)
    top += _row_height(row) + _GAP


def _regions(id_map):
  """Ids present, their indices from large to small, and who touches whom."""
  id_map = np.asarray(id_map)
  if id_map.ndim != 2 or id_map.dtype.kind not in 'iu':
    raise ValueError(
      f'an id map must be integers [H, W], but is {id_map.dtype} {id_map.shape}'
    )
  ids, first, ranks, sizes = np.unique(
    id_map, return_index=True, return_inverse=True, return_counts=True
  )
  ranks = ranks.reshape(id_map.shape)
  sides = [
    (ranks[:, 1:], ranks[:, :-1]),
    (ranks[1:], ranks[:-1]),
    (ranks[1:, 1:], ranks[:-1, :-1]),
    (ranks[1:, :-1], ranks[:-1, 1:]),
  ]
  pairs = np.concatenate([(a * len(ids) + b)[a != b] for a, b in sides])
  labelled = ids != IGNORE_ID
  neighbors = [set() for _ in ids]
  for a, b in zip(*np.divmod(np.unique(pairs), len(ids)), strict=True):
    if labelled[a] and labelled[b]:
      neighbors[a].add(int(b))
      neighbors[b].add(int(a))
  order = [int(k) for k in np.lexsort((first, -sizes)) if labelled[k]]
  return ids, order, neighbors


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


def _write(draw, where, text, size, color, width):
  """Draws text centred at the top of where, shortened to width."""
  font = ImageFont.load_default(size=size)
  shown = text
  while text and draw.textlength(shown, font) > width:
    text = text[:-1]
    shown = text + '...'
  draw.text(where, shown, fill=color, font=font, anchor='ma')
