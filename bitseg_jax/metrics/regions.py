"""Scores how well a predicted segmentation agrees with annotated ones.

Numpy and scipy on the host. Each score is computed from a contingency table:

- Ids carry no meaning: renaming them changes no score.
- Pixels whose annotation is IGNORE_ID (-1), or where `valid` is False, are left
  out, as if cropped away. Pixels whose prediction is -1 are not left out: they
  form one more segment.
- Where no pixel remains, the score is nan, so that one empty image does not end
  a long evaluation. Only the functions of tables want a pixel.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from bitseg_jax import IGNORE_ID, relabel

IdMaps = np.ndarray | Sequence[np.ndarray]


def contingency(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Counts the pixels that each pair of entity and segment shares.

  Args:
    true: integers [H, W], annotated ids; -1 is left out.
    pred: integers [H, W], predicted ids; -1 is one more segment.
    valid: bool [H, W], the pixels to count; all of them if None.

  Returns:
    (table, entity ids [E], segment ids [S]): counts int64 [E, S] without rows
    or columns of zeros, and the ids of its rows and columns, ascending.

  Raises:
    ValueError: if shapes differ, ids are not integers, or valid is not bool.
  """
  true, pred = np.asarray(true), np.asarray(pred)
  keep = true != IGNORE_ID
  _check(true, pred, keep if valid is None else np.asarray(valid))
  if valid is not None:
    keep = keep & valid
  rows, row_ids = relabel.compact(true[keep])
  columns, column_ids = relabel.compact(pred[keep])
  shape = len(row_ids), len(column_ids)
  joint = rows.astype(np.intp) * shape[1] + columns
  table = np.bincount(joint, minlength=shape[0] * shape[1])
  return table.reshape(shape), row_ids, column_ids


def iou_matrix(table: np.ndarray) -> np.ndarray:
  """Computes the IoU, float64 [E, S], of each entity and segment of a table."""
  rows = table.sum(axis=1, keepdims=True)
  return table / (rows + table.sum(axis=0) - table)


def ari_and_iou(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> dict[str, float]:
  """Scores one prediction by ARI and Hungarian IoU; arguments of contingency.

  Returns:
    {'ari': float in [-1, 1], 'iou': float in [0, 1]}, nan without valid pixels.
  """
  table = contingency(true, pred, valid)[0]
  scores = {'ari': table_ari, 'iou': table_iou}
  return {name: _of_table(score, table) for name, score in scores.items()}


def adjusted_rand_index(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> float:
  """Scores agreement on which pixel pairs belong together (ARI).

  Arguments are as of contingency, which also checks them.

  Returns:
    ARI in [-1, 1], 0 for chance, nan without valid pixels. Identical partitions
    score 1, even if they consist of one entity or of single pixels, where
    chance agrees just as well.

  Source: sec. 4; Hubert and Arabie, "Comparing partitions", 1985.
  """
  return _of_table(table_ari, contingency(true, pred, valid)[0])


def hungarian_iou(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> float:
  """Scores the mean IoU of entities and segments matched one to one (sec. 4).

  Arguments are as of contingency. The mean is over annotated entities, and one
  without a segment counts as 0; it is nan without valid pixels.
  """
  return _of_table(table_iou, contingency(true, pred, valid)[0])


def covering(preds_or_pred: IdMaps, annotations: IdMaps) -> float:
  """Scores how well segments cover the regions of all annotators.

  For one prediction: sum_R |R| max_S IoU(R, S) / sum_R |R| over all regions R.

  Args:
    preds_or_pred, annotations: integers [N, H, W] as array or list, or [H, W].

  Returns:
    Mean covering in [0, 1] over predictions; nan if nothing is annotated.

  Raises:
    ValueError: if no id map is given, shapes differ, or ids are not integers.

  Source: Arbelaez et al., "Contour detection and hierarchical image
    segmentation", TPAMI 2011, sec. 3.
  """
  coverings = []
  annotations = as_list(annotations, 'annotations')
  for pred in as_list(preds_or_pred, 'preds_or_pred'):
    tables = [contingency(a, pred)[0] for a in annotations]
    covered = [t.sum() * table_covering(t) for t in tables if t.size]
    pixels = sum(t.sum() for t in tables)
    coverings.append(sum(covered) / pixels if pixels else np.nan)
  return float(np.mean(coverings))


def rand_index(pred: np.ndarray, annotations: IdMaps) -> float:
  """Scores the share of pixel pairs that pred and annotators treat alike.

  With several annotators this is the probabilistic Rand index (PRI).

  Returns:
    Mean in [0, 1] over the annotators who labelled any pixel; nan if none did.

  Source: Unnikrishnan et al., "Toward objective evaluation of image
    segmentation algorithms", TPAMI 2007.
  """
  return _mean_of(table_rand_index, pred, annotations)


def variation_of_information(pred: np.ndarray, annotations: IdMaps) -> float:
  """Scores the information that prediction and annotation do not share (VoI).

  H(pred | annotation) + H(annotation | pred) in bits, 0 for identical
  partitions; arguments and mean as of rand_index.

  Source: Meila, "Comparing clusterings", 2007.
  """
  return _mean_of(table_voi, pred, annotations)


def table_ari(table: np.ndarray) -> float:
  """Computes adjusted_rand_index from a table, int [E, S]."""
  both, in_true, in_pred, pairs = _pair_counts(table)
  # ARI is (both - chance) / ((in_true + in_pred) / 2 - chance) with chance =
  # in_true * in_pred / pairs. Multiplied by 2 pairs it is exact in Python ints:
  # identical maps give exactly 1, and the degenerate case exactly 0 / 0.
  chance = 2 * in_true * in_pred
  best = pairs * (in_true + in_pred) - chance
  return (2 * pairs * both - chance) / best if best else 1.0


def table_rand_index(table: np.ndarray) -> float:
  """Computes rand_index from a table, int [E, S]."""
  both, in_true, in_pred, pairs = _pair_counts(table)
  return 1 - (in_true + in_pred - 2 * both) / pairs if pairs else 1.0


def table_iou(table: np.ndarray) -> float:
  """Computes hungarian_iou from a table, int [E, S]."""
  iou = iou_matrix(table)
  return iou[linear_sum_assignment(iou, maximize=True)].sum() / len(iou)


def table_covering(table: np.ndarray) -> float:
  """Computes covering from a table, int [E, S]."""
  return table.sum(axis=1) @ iou_matrix(table).max(axis=1) / table.sum()


def table_voi(table: np.ndarray) -> float:
  """Computes variation_of_information from a table, int [E, S]."""
  of_true, of_pred = _entropy(table.sum(axis=1)), _entropy(table.sum(axis=0))
  # Rounding may leave the difference of equal entropies just below zero.
  return max(2 * _entropy(table) - of_true - of_pred, 0.0)


def labelled(annotations: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Leaves out annotations, integers [H, W] each, that label no pixel."""
  return [a for a in annotations if (a != IGNORE_ID).any()]


def as_list(maps: IdMaps, name: str) -> list[np.ndarray]:
  """Returns one id map or several as a list; `name` is for the error."""
  if getattr(maps, 'ndim', None) == 2:
    return [maps]
  if not len(maps):
    raise ValueError(f'{name} is empty; give at least one id map')
  return list(maps)


def _check(true, pred, valid):
  for name, ids in ('true', true), ('pred', pred):
    if ids.dtype.kind not in 'iu':
      raise ValueError(f'{name} must hold integer ids, but is {ids.dtype}')
  if valid.dtype != bool:
    raise ValueError(f'valid must be bool, but is {valid.dtype}')
  if not true.shape == pred.shape == valid.shape:
    raise ValueError(
      f'id maps must share one shape: true is {true.shape}, pred {pred.shape}, '
      f'valid {valid.shape}; resize or crop one to the other'
    )


def _of_table(score, table):
  return float(score(table)) if table.size else math.nan


def _pair_counts(table):
  """Counts pixel pairs joined in both, in true, in pred, and all pairs.

  They are Python ints, so that products of them are exact.
  """
  groups = table, table.sum(axis=1), table.sum(axis=0), table.sum()
  return [int((n * (n - 1)).sum()) // 2 for n in map(np.int64, groups)]


def _entropy(counts):
  shares = counts[counts > 0] / counts.sum()
  return -(shares * np.log2(shares)).sum()


def _mean_of(score, pred, annotations):
  """Means a score of tables over annotators who labelled any pixel."""
  annotations = as_list(annotations, 'annotations')
  tables = [contingency(a, pred)[0] for a in annotations]
  values = [score(table) for table in tables if table.size]
  return float(np.mean(values)) if values else math.nan
