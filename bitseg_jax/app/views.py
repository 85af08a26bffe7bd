"""Which parts of photos the model sees, and how tiles become one photo.

It sees a photo whole, or in overlapping tiles. Close-ups are five parts of
either that it sees as well, in more detail; their samples join the consensus.
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


class View(NamedTuple):
  """A part of a photo that the model sees.

  Attributes:
    photo: index of the photo.
    tile: box of the tile, in pixels of the photo.
    box: what is seen of it: all, or a close-up; in pixels of the photo.
    num_samples: how many samples of it are drawn.
  """

  photo: int
  tile: Box
  box: Box
  num_samples: int


def plan(
  sizes: Sequence[tuple[int, int]],
  tile: int | None,
  num_samples: int,
  closeups: int,
) -> list[View]:
  """Chooses the views: of each photo its tiles, each before its close-ups.

  Args:
    sizes: (H, W) of each photo.
    tile, num_samples, closeups: see answer.AnswerOptions.
  """
  views = []
  for i, size in enumerate(sizes):
    for box in split(size, tile or max(size)):
      views.append(View(i, box, box, num_samples))
      if not closeups:
        continue
      top, left, bottom, right = box
      height, width = bottom - top, right - left
      h, w = (max(1, round(CLOSEUP_SHARE * side)) for side in (height, width))
      for down, across in _PLACES:
        y, x = top + int(down * (height - h)), left + int(across * (width - w))
        views.append(View(i, box, (y, x, y + h, x + w), closeups))
  return views


def split(size: tuple[int, int], tile: int) -> list[Box]:
  """Covers a photo with tiles that overlap their neighbours by a quarter.

  Args:
    size: (H, W) of the photo, in pixels.
    tile: side of the square tiles, in pixels; the photo may be smaller.

  Returns:
    Boxes of the tiles, row by row.
  """

  def spans(length):
    overlap = int(tile * OVERLAP)
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    starts = np.linspace(0, max(length - tile, 0), count).round().astype(int)
    return [(start, min(start + tile, length)) for start in starts.tolist()]

  return [
    (top, left, bottom, right)
    for (top, bottom), (left, right) in itertools.product(*map(spans, size))
  ]


def crop(array: np.ndarray, box: Box, origin: Box = (0, 0)) -> np.ndarray:
  """Cuts a box out of an array [H, W, ...] that begins at `origin`."""
  y, x = origin[:2]
  top, left, bottom, right = box
  return array[top - y : max(bottom - y, 0), left - x : max(right - x, 0)]


def scaled(box: Box, outer: Box, size: tuple[int, int]) -> Box:
  """A box as it lies in a copy of an outer box, of one pixel at least."""
  start, end = [], []
  for axis, length in enumerate(size):
    scale = length / (outer[axis + 2] - outer[axis])
    first = round((box[axis] - outer[axis]) * scale)
    last = round((box[axis + 2] - outer[axis]) * scale)
    start.append(min(first, length - 1))
    end.append(max(start[-1] + 1, last))
  return (*start, *end)


def merge_ids(
  id_maps: Sequence[np.ndarray], boxes: Sequence[Box]
) -> np.ndarray:
  """Joins id maps of tiles; segments that continue in another tile get one id.

  Segments of two tiles are the same if their IoU in the overlap exceeds 1/2.

  Args:
    id_maps: integers [h, w] of each tile, as large as its box, not negative.
    boxes: as from `split`.

  Returns:
    int32 [H, W], ids 0, 1, ... without gaps.
  """
  counts = [int(id_map.max()) + 1 for id_map in id_maps]
  offsets = np.concatenate([[0], np.cumsum(counts)])
  links = [np.empty((0, 2), np.int64)]
  for i, j in itertools.combinations(range(len(boxes)), 2):
    both = (
      np.maximum(boxes[i], boxes[j])[:2],
      np.minimum(boxes[i], boxes[j])[2:],
    )
    both = np.concatenate(both).tolist()
    first, second = (crop(id_maps[k], both, boxes[k]) for k in (i, j))
    if first.size:
      table, rows, columns = metrics.contingency(first, second)
      alike = np.argwhere(metrics.iou_matrix(table) > 0.5)
      rows, columns = rows[alike[:, 0]], columns[alike[:, 1]]
      links.append(np.stack([rows + offsets[i], columns + offsets[j]], axis=1))
  links = np.concatenate(links)
  graph = coo_array(
    (np.ones(len(links), bool), (links[:, 0], links[:, 1])),
    (offsets[-1], offsets[-1]),
  )
  names = connected_components(graph, directed=False)[1]
  merged = join(
    [names[m + o] for m, o in zip(id_maps, offsets, strict=False)], boxes
  )
  # A segment is lost if it lies only on the far side of a seam.
  return relabel.compact(merged)[0]


def join(parts: Sequence[np.ndarray], boxes: Sequence[Box]) -> np.ndarray:
  """Puts tiles together, with seams along the middle of their overlaps.

  Args:
    parts: arrays [h, w] of each tile, as large as its box.
    boxes: as from `split`.

  Returns:
    [H, W], with the dtype of the parts.
  """

  def seams(axis):
    """Maps the start of each span to the part of it that the tile fills."""
    spans = sorted({(box[axis], box[axis + 2]) for box in boxes})
    cuts = [(a[1] + b[0]) // 2 for a, b in itertools.pairwise(spans)]
    bounds = itertools.pairwise([0, *cuts, spans[-1][1]])
    return {span[0]: own for span, own in zip(spans, bounds, strict=True)}

  rows, columns = seams(0), seams(1)
  whole = np.empty(np.max(boxes, axis=0)[2:], parts[0].dtype)
  for part, box in zip(parts, boxes, strict=True):
    (top, bottom), (left, right) = rows[box[0]], columns[box[1]]
    own = top, left, bottom, right
    whole[top:bottom, left:right] = crop(part, own, box)
  return whole


def blend(parts: Sequence[np.ndarray], boxes: Sequence[Box]) -> np.ndarray:
  """Averages overlapping tiles, weighted by the distance to the tile's edge.

  Args:
    parts: float32 [h, w] of each tile, as large as its box.
    boxes: as from `split`.

  Returns:
    float32 [H, W].
  """
  total, weights = np.zeros((2, *np.max(boxes, axis=0)[2:]), np.float32)
  for part, box in zip(parts, boxes, strict=True):
    down, across = (
      np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in part.shape
    )
    weight = np.minimum(down[:, None], across)
    crop(total, box)[:] += weight * part
    crop(weights, box)[:] += weight
  return total / weights
