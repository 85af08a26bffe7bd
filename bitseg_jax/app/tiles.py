"""Splits a large photo into overlapping tiles and joins their segmentations."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bitseg_jax import metrics, relabel
from bitseg_jax.evaluation.consensus import Box

OVERLAP = 0.25  # as a share of a tile's side


def split(size: tuple[int, int], tile: int) -> list[Box]:
  """Covers a photo with tiles that overlap their neighbours by a quarter.

  Args:
    size: (H, W) of the photo, in pixels.
    tile: side of the square tiles, in pixels; the photo may be smaller.

  Returns:
    Boxes of the tiles, row by row.
  """
  rows, columns = (_spans(length, tile) for length in size)
  return [
    (top, left, bottom, right)
    for (top, bottom), (left, right) in itertools.product(rows, columns)
  ]


def crop(image: np.ndarray, box: Box) -> np.ndarray:
  """Cuts a box out of an array [H, W, ...]."""
  top, left, bottom, right = box
  return image[top:bottom, left:right]


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
    both = _overlap(boxes[i], boxes[j])
    first, second = (_crop(id_maps[k], boxes[k], both) for k in (i, j))
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
  rows = _seams({box[::2] for box in boxes})
  columns = _seams({box[1::2] for box in boxes})
  whole = np.empty(
    (max(b[2] for b in boxes), max(b[3] for b in boxes)), parts[0].dtype
  )
  for part, box in zip(parts, boxes, strict=True):
    (top, bottom), (left, right) = rows[box[0]], columns[box[1]]
    whole[top:bottom, left:right] = _crop(part, box, (top, left, bottom, right))
  return whole


def blend(parts: Sequence[np.ndarray], boxes: Sequence[Box]) -> np.ndarray:
  """Averages overlapping tiles, weighted by the distance to the tile's edge.

  Args:
    parts: float32 [h, w] of each tile, as large as its box.
    boxes: as from `split`.

  Returns:
    float32 [H, W].
  """
  size = max(b[2] for b in boxes), max(b[3] for b in boxes)
  total, weights = np.zeros(size, np.float32), np.zeros(size, np.float32)
  for part, (top, left, bottom, right) in zip(parts, boxes, strict=True):
    down, across = (
      np.minimum(np.arange(n) + 1, n - np.arange(n)).astype(np.float32)
      for n in part.shape
    )
    weight = np.minimum(down[:, None], across)
    total[top:bottom, left:right] += weight * part
    weights[top:bottom, left:right] += weight
  return total / weights


def _spans(length, tile):
  """Returns (first, last + 1) pixel of each tile along one side."""
  overlap = int(tile * OVERLAP)
  count = max(1, -(-(length - overlap) // (tile - overlap)))
  starts = np.linspace(0, max(length - tile, 0), count).round().astype(int)
  return [(start, min(start + tile, length)) for start in starts.tolist()]


def _seams(spans):
  """Maps the start of each span to the part of it that the tile fills."""
  spans = sorted(spans)
  cuts = [(a[1] + b[0]) // 2 for a, b in itertools.pairwise(spans)]
  bounds = itertools.pairwise([0, *cuts, spans[-1][1]])
  return {span[0]: own for span, own in zip(spans, bounds, strict=True)}


def _overlap(first, second):
  return (
    *np.maximum(first[:2], second[:2]).tolist(),
    *np.minimum(first[2:], second[2:]).tolist(),
  )


def _crop(part, box, inner):
  """Crops a tile to another box; the result may be empty."""
  top, left, bottom, right = inner
  return part[
    top - box[0] : max(bottom - box[0], 0),
    left - box[1] : max(right - box[1], 0),
  ]
