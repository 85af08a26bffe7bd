"""Scores segments by panoptic quality (PQ), with all entities as one class."""

from typing import NamedTuple

import numpy as np

from bitseg_jax.metrics import regions


class Matches(NamedTuple):
  """Counts of segments and entities; predictions add up field by field."""

  iou: float  # sum over the matched pairs
  found: float  # matched pairs
  invented: float  # segments without an entity
  missed: float  # entities without a segment


def overlaps(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Counts the pixels each entity and segment share, and those of no entity.

  Arguments are as of regions.contingency, which also checks them.

  Returns:
    (table, outside): counts int64 [E, S] without rows or columns of zeros, and
    the pixels of each of these segments that are not annotated, int64 [S].
  """
  true = np.asarray(true)
  if true.dtype.kind in 'iu':  # regions.contingency rejects any other
    true = true.astype(np.int64) + 1  # -1 becomes 0 and is counted too
  table, ids, _ = regions.contingency(true, pred, valid)
  outside = np.zeros(table.shape[1], np.int64)
  if len(ids) and ids[0] == 0:
    outside, table = table[0], table[1:]
  inside = table.any(axis=0)
  return table[:, inside], outside[inside]


def match(table: np.ndarray, outside: np.ndarray | float = 0) -> Matches:
  """Matches segments to entities where their IoU is over 0.5.

  No segment can exceed 0.5 with two entities, so this is the best matching.

  Args:
    table: shared pixels of entities and segments, int [E, S].
    outside: pixels of each segment that are not annotated, [S]. An unmatched
      segment does not count as invented if they are more than half of it.

  Returns:
    The counts.

  Source: Kirillov et al., "Panoptic segmentation", CVPR 2019, sec. 4.
  """
  iou = regions.iou_matrix(table)
  pairs = iou > 0.5
  judged = outside <= table.sum(axis=0)
  return Matches(
    iou=float(iou[pairs].sum()),
    found=int(pairs.sum()),
    invented=int((judged & ~pairs.any(axis=0)).sum()),
    missed=int((~pairs.any(axis=1)).sum()),
  )


def quality(matches: Matches) -> dict[str, float]:
  """Scores matches by PQ = SQ x RQ (counts of one prediction, or their sums).

  Returns:
    {'pq', 'sq', 'rq'}, each in [0, 1]: sq is the mean IoU of matched pairs (0
    without any), rq the F score of finding entities. All are nan if there is
    neither entity nor segment.
  """
  iou, found, invented, missed = matches
  size = found + (invented + missed) / 2
  if not size:
    return dict.fromkeys(('pq', 'sq', 'rq'), float('nan'))
  sq = iou / found if found else 0.0
  return {'pq': iou / size, 'sq': sq, 'rq': found / size}
