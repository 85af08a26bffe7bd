"""The table of all scores: name, title, function, and which way is better.

Evaluation, baselines, reports and the scoring of other methods read this table,
so a new score takes one row here and the function that computes it.
"""

import functools
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax import IGNORE_ID
from bitseg_jax.metrics import boundary, panoptic, regions, sets, uncertainty


class Score(NamedTuple):
  """One row of the table of scores.

  Attributes:
    title: name in tables and plots.
    function: computes the score from one argument.
    of: kind of that argument: 'table', a contingency table of one map and one
      annotator; 'ensemble', an Ensemble; 'panoptic' or 'boundary', the Matches
      of that module, pooled over images; 'reliability', counts of
      uncertainty.count_reliability, pooled over images.
    higher_is_better: whether a higher value is better than a lower one.
  """

  title: str
  function: Callable[[Any], float]
  of: str = 'table'
  higher_is_better: bool = True


class Ensemble(NamedTuple):
  """Samples and annotations of one image with the scores of all pairs.

  Attributes:
    samples: N id maps, integers [H, W].
    annotations: A id maps, integers [H, W], -1 where unlabelled.
    ari: ARI of each annotation and sample, float [A, N].
    iou: Hungarian IoU of each annotation and sample, float [A, N].
    among_samples: 1 - ARI of each pair of samples, float [N, N].
    among_annotations: 1 - ARI of each pair of annotations, float [A, A].
  """

  samples: Sequence[np.ndarray]
  annotations: Sequence[np.ndarray]
  ari: np.ndarray
  iou: np.ndarray
  among_samples: np.ndarray
  among_annotations: np.ndarray

  def first(self, count: int) -> 'Ensemble':
    """Returns the ensemble of the first `count` samples only."""
    return self._replace(
      samples=self.samples[:count],
      ari=self.ari[:, :count],
      iou=self.iou[:, :count],
      among_samples=self.among_samples[:count, :count],
    )


def _energy_distance(e: Ensemble) -> float:
  return sets.energy_distance(1 - e.ari, e.among_annotations, e.among_samples)


def _matched_iou(e: Ensemble) -> float:
  return float('nan') if np.isnan(e.iou).any() else sets.matched_score(e.iou)


def _contested_area(e: Ensemble) -> float:
  if len(e.samples) == 1:
    return float('nan')  # one sample cannot disagree with itself
  return uncertainty.contested_area(
    uncertainty.disagreement(e.samples), e.annotations
  )


def _part(function, name):
  return lambda counts: function(counts)[name]


_pq = functools.partial(_part, panoptic.quality)
_f = functools.partial(_part, boundary.f_score)
_reliability = functools.partial(_part, uncertainty.calibration)

SCORES = {
  'ari': Score('ARI', regions.table_ari),
  'iou': Score('IoU', regions.table_iou),
  'covering': Score('covering', regions.table_covering),
  'pri': Score('PRI', regions.table_rand_index),
  'voi_bits': Score('VoI', regions.table_voi, higher_is_better=False),
  'ged': Score('GED', _energy_distance, 'ensemble', False),
  'matched_set_iou': Score('set IoU', _matched_iou, 'ensemble'),
  'contested_auroc': Score('AUROC', _contested_area, 'ensemble'),
  'pq': Score('PQ', _pq('pq'), 'panoptic'),
  'sq': Score('SQ', _pq('sq'), 'panoptic'),
  'rq': Score('RQ', _pq('rq'), 'panoptic'),
  'boundary_f': Score('bound. F', _f('f'), 'boundary'),
  'boundary_precision': Score('bound. P', _f('precision'), 'boundary'),
  'boundary_recall': Score('bound. R', _f('recall'), 'boundary'),
  'ece': Score('ECE', _reliability('ece'), 'reliability', False),
  'brier': Score('Brier', _reliability('brier'), 'reliability', False),
}


def names(of: str) -> list[str]:
  """Lists the scores computed from one kind of argument, in table order."""
  return [name for name, score in SCORES.items() if score.of == of]


def compute(of: str, argument: Any) -> dict[str, float]:
  """Computes all scores of one kind of argument.

  Args:
    of: the kind of argument, see Score.of.
    argument: what the scores are computed from.

  Returns:
    {name: value}, nan where there is nothing to score.
  """
  return {name: float(SCORES[name].function(argument)) for name in names(of)}


def pairwise_distances(maps: Sequence[np.ndarray]) -> np.ndarray:
  """Computes 1 - ARI of each pair of id maps on the pixels both have labelled.

  Args:
    maps: N id maps, integers [H, W], -1 where unlabelled.

  Returns:
    float [N, N], symmetric, 0 on the diagonal.
  """
  found = np.zeros((len(maps), len(maps)))
  for i, j in combinations(range(len(maps)), 2):
    labelled = maps[j] != IGNORE_ID
    found[i, j] = 1 - regions.adjusted_rand_index(maps[i], maps[j], labelled)
  return found + found.T
