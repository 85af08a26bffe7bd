"""Parts of a photo that the model sees by themselves: close-ups and tiles.

Close-ups are five parts in which the model sees more detail; their samples join
the consensus of the whole photo. Tiles overlap, are segmented each by itself,
and become one photo.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bitseg_jax import metrics, relabel
from bitseg_jax.evaluation.consensus import Box

OVERLAP = 0.25  # of tiles, as a share of their side
CLOSEUP_SHARE = 0.7  # of the sides of what it is a close-up of
_PLACES = (0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)  # corners and middle


def closeups(size: tuple[int, int]) -> list[Box]:
  """Boxes of the close-ups of a photo of size (H, W)."""
  h, w = (max(1, round(CLOSEUP_SHARE * side)) for side in size)
  corners = [
    (int(down * (size[0] - h)), int(across * (size[1] - w)))
    for down, across in _PLACES
  ]
  return [(y, x, y + h, x + w) for y, x in corners]


def scaled(box: Box, size: tuple[int, int], small: tuple[int, int]) -> Box:
  """A box of a photo as it lies in a small copy, of one pixel at least."""
  start, end = [], []
  for axis, (old, new) in enumerate(zip(size, small, strict=True)):
    start.append(min(round(box[axis] * new / old), new - 1))
    end.append(max(start[-1] + 1, round(box[axis + 2] * new / old)))
  return (*start, *end)


def crop(array: np.ndarray, box: Box, origin: Box = (0, 0)) -> np.ndarray:
  """Cuts a box out of an array [H, W, ...] that begins at `origin`."""
  y, x = origin[:2]
  top, left, bottom, right = box
  return array[top - y : max(bottom - y, 0), left - x : max(right - x, 0)]


class Tile(NamedTuple):
  """A tile of a photo, and the part of it that it fills: up to the seams."""

  box: Box
  own: Box


def split(size: tuple[int, int], side: int) -> list[Tile]:
  """Covers a photo with tiles that overlap their neighbours by a quarter.

  Args:
    size: (H, W) of the photo, in pixels.
    side: of the square tiles, in pixels; the photo may be smaller.

  Returns:
    The tiles, row by row. Seams go along the middle of their overlaps.
  """

  def spans(length):
    overlap = int(side * OVERLAP)
    count = max(1, -(-(length - overlap) // (side - overlap)))
    starts = np.linspace(0, max(length - side, 0), count).round().astype(int)
    ends = np.minimum(starts + side, length).tolist()
    starts = starts.tolist()
    seams = [(a + b) // 2 for a, b in zip(ends[:-1], starts[1:], strict=True)]
    return zip(starts, ends, [0, *seams], [*seams, length], strict=True)

  return [
    Tile((y0, x0, y1, x1), (top, left, bottom, right))
    for (y0, y1, top, bottom), (x0, x1, left, right) in itertools.product(
      *map(spans, size)
    )
  ]


def join(parts: Sequence[np.ndarray], tiles: Sequence[Tile]) -> np.ndarray:
  """Puts arrays [h, w] of tiles together: [H, W]."""
  whole = np.empty(tiles[-1].box[2:], parts[0].dtype)
  for part, (box, own) in zip(parts, tiles, strict=True):
    crop(whole, own)[:] = crop(part, own, box)
  return whole


def merge_ids(
  id_maps: Sequence[np.ndarray], tiles: Sequence[Tile]
) -> np.ndarray:
  """Joins id maps of tiles; segments that continue in another tile get one id.

  Segments of two tiles are the same if their IoU in the overlap exceeds 1/2.

  Args:
    id_maps: integers [h, w] of each tile, not negative.
    tiles: as from `split`.

  Returns:
    int32 [H, W], ids 0, 1, ... without gaps.
  """
  counts = [int(id_map.max()) + 1 for id_map in id_maps]
  offsets = np.concatenate([[0], np.cumsum(counts)])
  links = [np.empty((2, 0), np.int64)]
  for i, j in itertools.combinations(range(len(tiles)), 2):
    a, b = tiles[i].box, tiles[j].box
    both = (*map(max, a[:2], b[:2]), *map(min, a[2:], b[2:]))
    first, second = crop(id_maps[i], both, a), crop(id_maps[j], both, b)
    if first.size:
      table, rows, columns = metrics.contingency(first, second)
      row, column = np.nonzero(metrics.iou_matrix(table) > 0.5)
      links.append([rows[row] + offsets[i], columns[column] + offsets[j]])
  first, second = np.concatenate(links, axis=1)
  alike = np.ones(len(first), bool)
  graph = coo_array((alike, (first, second)), (offsets[-1], offsets[-1]))
  names = connected_components(graph, directed=False)[1]
  named = [names[m + o] for m, o in zip(id_maps, offsets, strict=False)]
  # A segment is lost if it lies only on the far side of a seam.
  return relabel.compact(join(named, tiles))[0]
