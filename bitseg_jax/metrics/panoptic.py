"""Panoptic quality of one class: entities found, missed and made up."""

from typing import NamedTuple

import numpy as np

from bitseg_jax.metrics import regions


class Matches(NamedTuple):
  """Counts of one prediction; add those of several field by field.

  Attributes:
    iou: sum of the IoUs of the matched pairs.
    found: matched pairs.
    invented: segments without an entity.
    missed: entities without a segment.
  """

  iou: float
  found: float
  invented: float
  missed: float


def contingency(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """As regions.contingency, and what lies outside of the annotation.

  Args:
    true: integers [H, W], annotated ids; -1 is not annotated.
    pred: integers [H, W], predicted ids; -1 is one more segment.
    valid: bool [H, W], the pixels to count; all of them if None.

  Returns:
    Counts int64 [E, S] without row or column of zeros, and the pixels that each
    of these segments has where nothing is annotated, int64 [S].

  Raises:
    ValueError: shapes differ, ids are not integers, or valid is not bool.
  """
  true = np.asarray(true)
  if true.dtype.kind in 'iu':  # any other is refused below
    true = true.astype(np.int64) + 1  # nothing is left out: -1 becomes 0
  table, ids, _ = regions.contingency(true, pred, valid)
  outside = np.zeros(table.shape[1], np.int64)
  if len(ids) and ids[0] == 0:
    outside, table = table[0], table[1:]
  inside = table.any(axis=0)
  return table[:, inside], outside[inside]


def match(table: np.ndarray, outside: np.ndarray | float = 0) -> Matches:
  """Matches segments to entities where their IoU is over 0.5.

  No segment can have that with two entities, so that this is the best matching.

  Args:
    table: counts [E, S], see contingency.
    outside: pixels of each segment where nothing is annotated [S]. A segment
      without an entity is not held against the prediction if they are more
      than half of it.

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
  """PQ = SQ x RQ of the counts of one prediction, or their sums over many.

  Returns:
    pq; sq, the mean IoU of matched pairs (0 without any); rq, the F score of
    finding entities; all nan where there is neither entity nor segment.
  """
  iou, found, invented, missed = matches
  size = found + (invented + missed) / 2
  if not size:
    return dict.fromkeys(('pq', 'sq', 'rq'), float('nan'))
  sq = iou / found if found else 0.0
  return {'pq': iou / size, 'sq': sq, 'rq': found / size}
