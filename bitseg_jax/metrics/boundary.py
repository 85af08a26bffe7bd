"""Boundary precision, recall and F as in the Berkeley benchmark (BSDS).

Boundaries are thinned to one pixel and matched one to one, those matched as
many as possible and then as near as possible, by an exact assignment (the
benchmark's own is a sparse approximation of it).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import KDTree

from bitseg_jax import IGNORE_ID

TOLERANCE = 0.0075  # of the image's diagonal


class Matches(NamedTuple):
  """Boundary pixels; add those of several predictions field by field.

  Attributes:
    right: predicted pixels that match a boundary of any annotator.
    predicted: pixels of the predicted boundaries.
    found: annotated pixels that are matched, summed over annotators.
    annotated: pixels of the annotated boundaries, summed over annotators.
  """

  right: int
  predicted: int
  found: int
  annotated: int


def boundaries(id_map: np.ndarray) -> np.ndarray:
  """Where ids meet, as lines one pixel wide.

  A pixel stands for its lower right corner, a boundary if any two pixels that
  share an edge there differ; these are then thinned.

  Args:
    id_map: integers [H, W]; where one of two pixels is -1 there is no boundary.

  Returns:
    bool [H, W], on BSDS500 the very boundaries that its files hold.
  """
  known = id_map != IGNORE_ID
  # below[i, j]: pixels (i, j) and (i + 1, j) differ; beside likewise
  below = np.zeros(id_map.shape, bool)
  beside = np.zeros(id_map.shape, bool)
  below[:-1] = (id_map[:-1] != id_map[1:]) & known[:-1] & known[1:]
  beside[:, :-1] = (
    (id_map[:, :-1] != id_map[:, 1:]) & known[:, :-1] & known[:, 1:]
  )
  lines = below | beside
  lines[:, :-1] |= below[:, 1:]
  lines[:-1] |= beside[1:]
  return _thin(lines)


def match(
  pred: np.ndarray,
  annotations: Sequence[np.ndarray],
  tolerance: float = TOLERANCE,
) -> Matches:
  """Matches predicted boundaries to those of each annotator.

  Args:
    pred: integers [H, W].
    annotations: integers [H, W] each; where one is -1 nothing is compared.
    tolerance: greatest distance of matched pixels, a share of the diagonal.

  Returns:
    The counts. A predicted pixel is right if any annotator's boundary matches
    it, and counts once; annotated ones count for each annotator.

  Source: Martin et al., "Learning to detect natural image boundaries", PAMI
    2004; Arbelaez et al., TPAMI 2011, sec. 3.1.
  """
  right, predicted = np.zeros((2, *pred.shape), bool)
  found = annotated = 0
  for annotation in annotations:
    lines = boundaries(annotation)
    mine = boundaries(np.where(annotation == IGNORE_ID, IGNORE_ID, pred))
    ours, theirs = np.argwhere(mine), np.argwhere(lines)
    rows = _assign(ours, theirs, tolerance * np.hypot(*pred.shape))
    right[tuple(ours[rows].T)] = True
    predicted |= mine
    found += len(rows)
    annotated += len(theirs)
  return Matches(int(right.sum()), int(predicted.sum()), found, annotated)


def f_score(matches: Matches) -> dict[str, float]:
  """Precision, recall and their harmonic mean.

  Args:
    matches: counts of one prediction, or their sums over many, as the benchmark
      has it.

  Returns:
    f, precision, recall; all nan where nobody drew a boundary. Where only one
    side did, all are 0.
  """
  right, predicted, found, annotated = matches
  if not predicted and not annotated:
    return dict.fromkeys(('f', 'precision', 'recall'), float('nan'))
  precision, recall = right / max(predicted, 1), found / max(annotated, 1)
  both = precision + recall
  f = 2 * precision * recall / both if both else 0.0
  return {'f': f, 'precision': precision, 'recall': recall}


def _assign(first, second, distance):
  """Which of the points first [N, 2] are matched to one of second [M, 2]."""
  near = KDTree(first).sparse_distance_matrix(
    KDTree(second), distance, output_type='coo_matrix'
  )
  if not near.nnz:
    return np.zeros(0, int)
  # without the points that lie near no other, it is much faster
  rows, i = np.unique(near.row, return_inverse=True)
  columns, j = np.unique(near.col, return_inverse=True)
  n, m = len(rows), len(columns)
  # A point of rows may also stay alone: beside the distances [n, m] each has a
  # column of its own, at a price over that of any detour. Zeros do not exist.
  alone = np.full(n, n * (distance + 1))
  costs = np.concatenate([near.data + 1e-9, alone])
  places = np.r_[i, np.arange(n)], np.r_[j, np.arange(m, m + n)]
  graph = csr_array((costs, places), shape=(n, m + n))
  chosen, to = min_weight_full_bipartite_matching(graph)
  return rows[chosen[to < m]]


def _thin(lines):
  """Thins until nothing changes, never breaking a line.

  Source: Guo and Hall, "Parallel thinning with two-subiteration algorithms",
    1989, which is also MATLAB's bwmorph(..., 'thin', inf).
  """
  padded = np.pad(lines, 1)
  flat, width = padded.ravel(), padded.shape[1]
  around = [dy * width + dx for dy, dx in _AROUND]
  pixels, before = np.flatnonzero(flat), -1
  while len(pixels) != before:
    before = len(pixels)
    for removable in _REMOVABLE:
      code = sum(flat[pixels + step] * 2**k for k, step in enumerate(around))
      gone = removable[code]
      flat[pixels[gone]] = False
      pixels = pixels[~gone]
  return padded[1:-1, 1:-1]


# The neighbours of a pixel, from the east counterclockwise.
_AROUND = (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)


def _removable(start):
  """Whether a pixel may go, for each of 256 neighbourhoods: bool [256]."""
  neighbours = np.arange(256)[:, None] >> np.arange(8) & 1 > 0
  x = np.roll(neighbours, -start, axis=1).T
  sides, corners, nexts = x[::2], x[1::2], np.roll(x[::2], -1, axis=0)
  crossings = (~sides & (corners | nexts)).sum(axis=0)
  thick = np.minimum(
    (sides | corners).sum(axis=0), (corners | nexts).sum(axis=0)
  )
  kept = (x[1] | x[2] | ~x[7]) & x[0]
  return (crossings == 1) & (thick >= 2) & (thick <= 3) & ~kept


_REMOVABLE = _removable(0), _removable(4)  # from the east, from the west
