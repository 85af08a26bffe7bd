"""How well a predicted segmentation agrees with annotated ones.

Plain numpy and scipy on the host. Every score comes out of one contingency
table and follows the same rules:

- Ids carry no meaning: renaming them changes no score.
- Pixels whose annotation is IGNORE_ID (-1), or where `valid` is False, are left
  out, as if cropped away. A prediction of -1 excuses nothing: such pixels are
  one more segment.
- Where no pixel remains, the score is nan, so that one empty image does not end
  a long evaluation; take means over images with that in mind.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from bitseg_jax import IGNORE_ID, relabel
from bitseg_jax.metrics import sets

IdMaps = np.ndarray | Sequence[np.ndarray]


def contingency(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Counts the pixels that each pair of (entity, segment) shares.

  Args:
    true: integers [H, W], annotated ids; -1 is left out.
    pred: integers [H, W], predicted ids; -1 is one more segment.
    valid: bool [H, W], the pixels to count; all of them if None.

  Returns:
    Counts int64 [E, S], the entity ids [E] of its rows and the segment ids [S]
    of its columns, both ascending. No row and no column is all zeros.

  Raises:
    ValueError: shapes differ, ids are not integers, or valid is not bool.
  """
  true, pred = np.asarray(true), np.asarray(pred)
  keep = true != IGNORE_ID
  _check(true, pred, keep if valid is None else np.asarray(valid))
  if valid is not None:
    keep = keep & valid
  if keep.all():
    true, pred = true.ravel(), pred.ravel()
  else:
    true, pred = true[keep], pred[keep]
  rows, row_ids = relabel.compact(true)
  columns, column_ids = relabel.compact(pred)
  shape = len(row_ids), len(column_ids)
  joint = rows.astype(np.intp) * shape[1] + columns
  table = np.bincount(joint, minlength=shape[0] * shape[1])
  return table.reshape(shape), row_ids, column_ids


def iou_matrix(table: np.ndarray) -> np.ndarray:
  """IoU float64 [E, S] of every entity and segment of a contingency table."""
  rows = table.sum(axis=1, keepdims=True)
  return table / (rows + table.sum(axis=0) - table)


def scores(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> dict[str, float]:
  """ARI and Hungarian IoU of one prediction, from one table.

  Args:
    true: integers [H, W], annotated ids; -1 is left out.
    pred: integers [H, W], predicted ids; -1 is one more segment.
    valid: bool [H, W], the pixels to count; all of them if None.

  Returns:
    {'ari': float in [-1, 1], 'iou': float in [0, 1]}, nan without valid pixels.

  Raises:
    ValueError: shapes differ, ids are not integers, or valid is not bool.
  """
  table, _, _ = contingency(true, pred, valid)
  return {'ari': table_ari(table), 'iou': table_iou(table)}


def adjusted_rand_index(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> float:
  """Agreement on which pixel pairs belong together; 0 is chance, 1 identity.

  Args:
    true: integers [H, W], annotated ids; -1 is left out.
    pred: integers [H, W], predicted ids; -1 is one more segment.
    valid: bool [H, W], the pixels to count; all of them if None.

  Returns:
    ARI in [-1, 1], nan without valid pixels. Identical partitions score 1, also
    where chance would agree as well: all in one entity, every pixel its own.

  Raises:
    ValueError: shapes differ, ids are not integers, or valid is not bool.

  Source: sec. 4; Hubert and Arabie, "Comparing partitions", 1985.
  """
  return table_ari(contingency(true, pred, valid)[0])


def hungarian_iou(
  true: np.ndarray, pred: np.ndarray, valid: np.ndarray | None = None
) -> float:
  """Mean IoU of the entities, each with the segment matched to it one to one.

  Args:
    true: integers [H, W], annotated ids; -1 is left out.
    pred: integers [H, W], predicted ids; -1 is one more segment.
    valid: bool [H, W], the pixels to count; all of them if None.

  Returns:
    IoU in [0, 1], mean over annotated entities, 0 for those without a segment;
    nan without valid pixels.

  Raises:
    ValueError: shapes differ, ids are not integers, or valid is not bool.

  Source: sec. 4.
  """
  return table_iou(contingency(true, pred, valid)[0])


def covering(preds_or_pred: IdMaps, annotations: IdMaps) -> float:
  """How much of the annotated regions the prediction's best segments cover.

  sum over all annotators' regions R of |R| max_S IoU(R, S), over sum of |R|.

  Args:
    preds_or_pred: integers [H, W], or several [N, H, W] as array or list.
    annotations: integers [A, H, W] as array or list, or one [H, W].

  Returns:
    Covering in [0, 1], mean over predictions; nan if nothing is annotated.

  Raises:
    ValueError: no id map given, shapes differ, or ids are not integers.

  Source: Arbelaez et al., "Contour detection and hierarchical image
    segmentation", TPAMI 2011, sec. 3.
  """
  coverings = []
  for pred in _id_maps(preds_or_pred, 'preds_or_pred'):
    covered = pixels = 0.0
    for table in _tables(pred, annotations):
      covered += table.sum() * table_covering(table)
      pixels += table.sum()
    coverings.append(covered / pixels if pixels else np.nan)
  return float(np.mean(coverings))


def rand_index(pred: np.ndarray, annotations: IdMaps) -> float:
  """Probabilistic Rand index: pixel pairs on which annotators agree with pred.

  Args:
    pred: integers [H, W].
    annotations: integers [A, H, W] as array or list, or one [H, W].

  Returns:
    Rand index in [0, 1], mean over the annotators who labelled any pixel; nan
    if none did.

  Raises:
    ValueError: no annotation given, shapes differ, or ids are not integers.

  Source: Unnikrishnan et al., "Toward objective evaluation of image
    segmentation algorithms", TPAMI 2007.
  """
  return _mean(
    [table_rand_index(table) for table in _tables(pred, annotations)]
  )


def variation_of_information(pred: np.ndarray, annotations: IdMaps) -> float:
  """Bits that prediction and annotation tell beyond what they share.

  H(pred | annotation) + H(annotation | pred); 0 is identity, lower is better.

  Args:
    pred: integers [H, W].
    annotations: integers [A, H, W] as array or list, or one [H, W].

  Returns:
    Bits, at least 0, mean over the annotators who labelled any pixel; nan if
    none did.

  Raises:
    ValueError: no annotation given, shapes differ, or ids are not integers.

  Source: Meila, "Comparing clusterings", 2007.
  """
  return _mean([table_voi(table) for table in _tables(pred, annotations)])


def generalized_energy_distance(
  samples: IdMaps,
  annotations: IdMaps,
  distance: Callable[[np.ndarray, np.ndarray], float],
) -> float:
  """Distance between the distributions of samples S and of annotations Y.

  2 E d(Y, S) - E d(S, S') - E d(Y, Y'), with expectations over all pairs, those
  of a map with itself among them.

  Args:
    samples: integers [N, H, W] as array or list, or one [H, W].
    annotations: integers [A, H, W] as array or list, or one [H, W].
    distance: d(true, pred), 0 for identical maps, such as 1 - ARI.

  Returns:
    The squared distance; 0 if both hold the same maps equally often.

  Raises:
    ValueError: no sample or no annotation given.

  Source: Kohl et al., "A probabilistic U-Net", NeurIPS 2018.
  """
  samples = _id_maps(samples, 'samples')
  annotations = _id_maps(annotations, 'annotations')

  def distances(first, second):
    return np.array([[distance(a, b) for b in second] for a in first])

  return sets.energy_distance(
    distances(annotations, samples),
    distances(annotations, annotations),
    distances(samples, samples),
  )


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


def _pairs(counts):
  """Number of pixel pairs inside the groups, an exact Python int."""
  counts = counts.astype(np.int64)
  return int((counts * (counts - 1)).sum()) // 2


def _pair_counts(table):
  """Pairs together in both, in true, in pred, and all pairs."""
  rows, columns = table.sum(axis=1), table.sum(axis=0)
  return _pairs(table), _pairs(rows), _pairs(columns), _pairs(rows.sum())


def table_ari(table: np.ndarray) -> float:
  """adjusted_rand_index of a contingency table [E, S]; nan if empty."""
  if not table.size:
    return float('nan')
  both, in_true, in_pred, pairs = _pair_counts(table)
  # (both - chance) / ((in_true + in_pred) / 2 - chance), where chance is
  # in_true * in_pred / pairs, times 2 pairs: exact in Python ints, so identical
  # maps give exactly 1 and the degenerate case is exactly 0 / 0.
  chance = 2 * in_true * in_pred
  best = pairs * (in_true + in_pred) - chance
  return (2 * pairs * both - chance) / best if best else 1.0


def table_rand_index(table: np.ndarray) -> float:
  """rand_index of a contingency table [E, S]; nan if empty."""
  if not table.size:
    return float('nan')
  both, in_true, in_pred, pairs = _pair_counts(table)
  return 1 - (in_true + in_pred - 2 * both) / pairs if pairs else 1.0


def table_iou(table: np.ndarray) -> float:
  """hungarian_iou of a contingency table [E, S]; nan if empty."""
  if not table.size:
    return float('nan')
  iou = iou_matrix(table)
  return float(iou[linear_sum_assignment(iou, maximize=True)].sum() / len(iou))


def table_covering(table: np.ndarray) -> float:
  """covering of a contingency table [E, S]; nan if empty."""
  if not table.size:
    return float('nan')
  return float(table.sum(axis=1) @ iou_matrix(table).max(axis=1) / table.sum())


def table_voi(table: np.ndarray) -> float:
  """variation_of_information of a contingency table [E, S]; nan if empty."""
  if not table.size:
    return float('nan')
  of_true, of_pred = _entropy(table.sum(axis=1)), _entropy(table.sum(axis=0))
  # Rounding may leave a difference of equal entropies just under zero.
  return max(2 * _entropy(table) - of_true - of_pred, 0.0)


def _entropy(counts):
  """Entropy in bits of counts of any shape."""
  shares = counts[counts > 0] / counts.sum()
  return float(-(shares * np.log2(shares)).sum())


def _id_maps(maps, name):
  """One id map or several, as a list."""
  if getattr(maps, 'ndim', None) == 2:
    return [maps]
  if not len(maps):
    raise ValueError(f'{name} is empty; give at least one id map')
  return list(maps)


def _tables(pred, annotations):
  """Tables of pred with each annotator who labelled any pixel."""
  annotations = _id_maps(annotations, 'annotations')
  tables = [contingency(annotation, pred)[0] for annotation in annotations]
  return [table for table in tables if table.size]


def _mean(values):
  return float(np.mean(values)) if values else float('nan')
