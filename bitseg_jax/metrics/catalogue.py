"""The one table of scores: what each is called, computes, and which way is up.

Evaluation, scoring of other methods, baselines and reports all read it, so a
new score is one row here, beside the function that computes it.
"""

import functools
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax import IGNORE_ID
from bitseg_jax.metrics import boundary, panoptic, regions, sets, uncertainty


class Score(NamedTuple):
  """One row of the table.

  Attributes:
    title: how tables and plots call it.
    function: what computes it, of the kind of argument that `of` names.
    of: 'table', a contingency table of one map and one annotator; 'ensemble',
      an Ensemble; 'panoptic' or 'boundary', Matches pooled over images;
      'reliability', counts pooled over images.
    higher_is_better: which of two values wins.
  """

  title: str
  function: Callable[[Any], float]
  of: str = 'table'
  higher_is_better: bool = True


class Ensemble(NamedTuple):
  """Several samples of one image beside all its annotators.

  Attributes:
    samples: N maps, integers [H, W].
    annotations: A maps, integers [H, W], -1 where unlabelled.
    ari: float [A, N], of every pair.
    iou: float [A, N], of every pair.
    among_samples: float [N, N], 1 - ARI of every pair of samples.
    among_annotations: float [A, A], likewise.
  """

  samples: Sequence[np.ndarray]
  annotations: Sequence[np.ndarray]
  ari: np.ndarray
  iou: np.ndarray
  among_samples: np.ndarray
  among_annotations: np.ndarray

  def first(self, count: int) -> 'Ensemble':
    """The same with the first `count` samples alone."""
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
  """Names of the scores of one kind of argument, in the table's order."""
  return [name for name, score in SCORES.items() if score.of == of]


def compute(of: str, argument: Any) -> dict[str, float]:
  """All scores of one kind, by name.

  Args:
    of: the kind of argument, see Score.
    argument: the argument.

  Returns:
    {name: value}, nan where there is nothing to score.
  """
  return {name: float(SCORES[name].function(argument)) for name in names(of)}


def pairwise_distances(maps: Sequence[np.ndarray]) -> np.ndarray:
  """1 - ARI of every two maps, over the pixels that both have labelled.

  Args:
    maps: N maps, integers [H, W], -1 where unlabelled.

  Returns:
    float [N, N], symmetric, 0 on the diagonal.
  """
  found = np.zeros((len(maps), len(maps)))
  for i, j in combinations(range(len(maps)), 2):
    labelled = maps[j] != IGNORE_ID
    found[i, j] = 1 - regions.adjusted_rand_index(maps[i], maps[j], labelled)
  return found + found.T
