"""Large photos in tiles, which overlap and are each segmented by itself."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bitseg_jax import metrics, relabel
from bitseg_jax.app import regions
from bitseg_jax.app.answer import AnswerOptions, Segmentation
from bitseg_jax.evaluation.consensus import Box

_OVERLAP = 0.25  # of tiles, as a share of their side


class Tile(NamedTuple):
  """A tile of a photo, and the part of it that it fills: up to the seams."""

  box: Box
  own: Box


def split(size: tuple[int, int], side: int) -> list[Tile]:
  """Covers a photo of size (H, W) with square tiles, row by row.

  Neighbours overlap by a quarter; seams go along the middle of the overlaps.
  """

  def spans(length):
    overlap = int(side * _OVERLAP)
    count = max(1, -(-(length - overlap) // (side - overlap)))
    starts = np.linspace(0, max(length - side, 0), count).round().astype(int)
    starts, ends = starts.tolist(), np.minimum(starts + side, length).tolist()
    seams = [(a + b) // 2 for a, b in zip(ends[:-1], starts[1:], strict=True)]
    return zip(starts, ends, [0, *seams], [*seams, length], strict=True)

  pairs = itertools.product(*map(spans, size))
  return [
    Tile((y0, x0, y1, x1), (top, left, bottom, right))
    for (y0, y1, top, bottom), (x0, x1, left, right) in pairs
  ]


def crop(array: np.ndarray, box: Box, origin: Box = (0, 0)) -> np.ndarray:
  """Cuts a box out of an array [H, W, ...] that begins at `origin`."""
  y, x = origin[:2]
  top, left, bottom, right = box
  return array[top - y : max(bottom - y, 0), left - x : max(right - x, 0)]


def join(parts: Sequence[np.ndarray], tiles: Sequence[Tile]) -> np.ndarray:
  """Puts arrays [h, w] of tiles together: [H, W]."""
  whole = np.empty(tiles[-1].box[2:], parts[0].dtype)
  for part, (box, own) in zip(parts, tiles, strict=True):
    crop(whole, own)[:] = crop(part, own, box)
  return whole


def merge_ids(
  id_maps: Sequence[np.ndarray], tiles: Sequence[Tile]
) -> np.ndarray:
  """Joins id maps [h, w] of tiles to int32 [H, W], ids 0, 1, ... without gaps.

  Segments of two tiles are the same if their IoU in the overlap exceeds 1/2.
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


def joined(
  parts: Sequence[Segmentation], tiles: Sequence[Tile], options: AnswerOptions
) -> Segmentation:
  """Makes the segmentation of a photo from those of its tiles.

  A segment's confidence is the mean over its pixels. Options say what is done
  with small and separate pieces, of which tiles alone do not know.
  """
  id_map = _tidied([part.id_map for part in parts], tiles, options)
  of_pixels = join([p.confidence[p.id_map] for p in parts], tiles)
  sums = np.bincount(id_map.ravel(), of_pixels.ravel())
  return Segmentation(
    id_map=id_map,
    uncertainty=join([part.uncertainty for part in parts], tiles),
    confidence=(sums / np.bincount(id_map.ravel())).astype(np.float32),
    num_samples=parts[0].num_samples,
    sample=functools.partial(_sample, parts, tiles, options),
  )


def _sample(parts, tiles, options, n):
  return _tidied([part.sample(n) for part in parts], tiles, options)


def _tidied(id_maps, tiles, options):
  id_map = merge_ids(id_maps, tiles)
  if options.min_area:
    id_map = regions.join_specks(id_map, options.min_area)
  if options.split_disconnected:
    id_map = regions.split_disconnected(id_map)
  return id_map
