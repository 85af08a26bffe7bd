"""Scores boundaries by precision, recall and F as in the BSDS benchmark.

Boundaries are thinned to one pixel and matched one to one. An exact assignment
matches as many pixels as possible, as near as possible; the benchmark's own is
a sparse approximation of it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import KDTree
from skimage.morphology import thin

from bitseg_jax import IGNORE_ID

TOLERANCE = 0.0075  # as a share of the image's diagonal


class Matches(NamedTuple):
  """Counts of boundary pixels; several predictions add up field by field."""

  right: int  # predicted, and on the boundary of any annotator
  predicted: int
  found: int  # annotated, and predicted, summed over annotators
  annotated: int  # summed over annotators


def boundaries(id_map: np.ndarray) -> np.ndarray:
  """Marks the boundaries between ids as lines one pixel wide.

  A pixel is marked if two of the four pixels that meet at its lower right
  corner share an edge and differ in id. The marks are then thinned.

  Args:
    id_map: integers [H, W]; a pixel of -1 has no boundary with its neighbours.

  Returns:
    bool [H, W]; on BSDS500 it equals the boundaries in the dataset's files.
  """
  known = id_map != IGNORE_ID
  # below[i, j]: pixels (i, j) and (i + 1, j) differ; beside: (i, j), (i, j + 1)
  below, beside = np.zeros((2, *id_map.shape), bool)
  below[:-1] = (np.diff(id_map, axis=0) != 0) & known[:-1] & known[1:]
  beside[:, :-1] = (np.diff(id_map) != 0) & known[:, :-1] & known[:, 1:]
  lines = below | beside
  lines[:, :-1] |= below[:, 1:]
  lines[:-1] |= beside[1:]
  return thin(lines)


def match(
  pred: np.ndarray,
  annotations: Sequence[np.ndarray],
  tolerance: float = TOLERANCE,
) -> Matches:
  """Matches predicted boundaries to those of each annotator.

  Args:
    pred: predicted ids, integers [H, W].
    annotations: A id maps, integers [H, W]; pixels of -1 are not compared.
    tolerance: greatest distance of matched pixels, as a share of the diagonal.

  Returns:
    The counts. A predicted pixel is right if any annotator's boundary matches
    it; annotated pixels count once for each annotator.

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
  """Scores matches (of one prediction, or their sums, as the benchmark does).

  Returns:
    {'boundary_f', 'boundary_precision', 'boundary_recall'}, each in [0, 1], F
    being the harmonic mean of the others. All are nan without any boundary, and
    0 if only prediction or annotations have one.
  """
  right, predicted, found, annotated = matches
  precision, recall = right / max(predicted, 1), found / max(annotated, 1)
  f = 2 * precision * recall / ((precision + recall) or 1)
  values = (f, precision, recall) if predicted or annotated else [math.nan] * 3
  names = 'boundary_f', 'boundary_precision', 'boundary_recall'
  return dict(zip(names, values, strict=True))


def _assign(first, second, distance):
  """Returns which points of first [N, 2] get a partner in second [M, 2]."""
  near = KDTree(first).sparse_distance_matrix(
    KDTree(second), distance, output_type='coo_matrix'
  )
  if not near.nnz:
    return np.zeros(0, int)
  # Leaving out the points that are near no other makes it much faster.
  rows, i = np.unique(near.row, return_inverse=True)
  columns, j = np.unique(near.col, return_inverse=True)
  n, m = len(rows), len(columns)
  # So that a point can stay unmatched, each has a further column of its own,
  # which costs more than any detour. 1e-9, since a stored 0 would be no edge.
  alone = np.full(n, n * (distance + 1))
  costs = np.concatenate([near.data + 1e-9, alone])
  places = np.r_[i, np.arange(n)], np.r_[j, np.arange(m, m + n)]
  graph = csr_array((costs, places), shape=(n, m + n))
  chosen, to = min_weight_full_bipartite_matching(graph)
  return rows[chosen[to < m]]
