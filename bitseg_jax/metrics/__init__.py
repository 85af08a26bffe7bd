"""Scores segmentations against annotations: id maps in, numbers out.

`regions` scores one map against annotators, `boundary` scores its outlines,
`panoptic` its segments by COCO's rules, `sets` several samples against several
annotators, and `uncertainty` their disagreement.

`SCORES` is the one table of all scores. Evaluation, baselines and the scoring
of other methods read it, so a new score takes a function and a row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax.metrics import boundary, panoptic, regions, sets, uncertainty
from bitseg_jax.metrics.regions import (  # for who scores maps of their own
  adjusted_rand_index,
  ari_and_iou,
  contingency,
  covering,
  hungarian_iou,
  iou_matrix,
  labelled,
  rand_index,
  variation_of_information,
)
from bitseg_jax.metrics.sets import (
  Ensemble,
  generalized_energy_distance,
  pairwise_distances,
)


class Score(NamedTuple):
  """One row of the table of scores.

  Attributes:
    title: name in tables and plots.
    function: computes the score from one argument, or several by their names.
    of: kind of that argument: 'table', a contingency table of one map and one
      annotator; 'ensemble', an Ensemble; and, pooled over images, 'panoptic' or
      'boundary', the Matches of that module, and 'reliability', counts of
      uncertainty.count_reliability.
    higher_is_better: as opposed to lower.
  """

  title: str
  function: Callable[[Any], float | dict[str, float]]
  of: str = 'table'
  higher_is_better: bool = True


def _energy_distance(e: Ensemble) -> float:
  return sets.energy_distance(1 - e.ari, e.among_annotations, e.among_samples)


def _matched_iou(e: Ensemble) -> float:
  return float('nan') if np.isnan(e.iou).any() else sets.matched_score(e.iou)


def _contested_auroc(e: Ensemble) -> float:
  unsure = uncertainty.disagreement(e.samples)  # nan for a single one
  return uncertainty.contested_auroc(unsure, e.annotations)


SCORES = {
  'ari': Score('ARI', regions.table_ari),
  'iou': Score('IoU', regions.table_iou),
  'covering': Score('covering', regions.table_covering),
  'pri': Score('PRI', regions.table_rand_index),
  'voi_bits': Score('VoI', regions.table_voi, higher_is_better=False),
  'ged': Score('GED', _energy_distance, 'ensemble', False),
  'matched_set_iou': Score('set IoU', _matched_iou, 'ensemble'),
  'contested_auroc': Score('AUROC', _contested_auroc, 'ensemble'),
  'pq': Score('PQ', panoptic.quality, 'panoptic'),
  'sq': Score('SQ', panoptic.quality, 'panoptic'),
  'rq': Score('RQ', panoptic.quality, 'panoptic'),
  'boundary_f': Score('bound. F', boundary.f_score, 'boundary'),
  'boundary_precision': Score('bound. P', boundary.f_score, 'boundary'),
  'boundary_recall': Score('bound. R', boundary.f_score, 'boundary'),
  'ece': Score('ECE', uncertainty.calibration, 'reliability', False),
  'brier': Score('Brier', uncertainty.calibration, 'reliability', False),
}


def names(of: str) -> list[str]:
  """Lists the scores computed from one kind of argument, in table order."""
  return [name for name, score in SCORES.items() if score.of == of]


def region_scores(true: np.ndarray, pred: np.ndarray) -> list[float]:
  """Scores one map, see contingency, by all scores of a table, in its order."""
  return list(compute('table', contingency(true, pred)[0]).values())


def compute(of: str, argument: Any) -> dict[str, float]:
  """Computes all scores of one kind of argument, see Score.of.

  Returns:
    {name: value}, nan where there is nothing to score.
  """
  if of == 'table' and not argument.size:
    return dict.fromkeys(names(of), float('nan'))
  found = {}
  for name in names(of):
    value = SCORES[name].function(argument)
    found[name] = float(value[name] if isinstance(value, dict) else value)
  return found
