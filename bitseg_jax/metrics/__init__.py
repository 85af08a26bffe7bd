"""Scores segmentations against annotations: id maps in, numbers out.

`regions` scores one map against annotators, `boundary` scores its outlines,
`panoptic` its segments by COCO's rules, `sets` several samples against several
annotators, and `uncertainty` their disagreement. `SCORES` lists all scores.
"""

from bitseg_jax.metrics import boundary, panoptic, regions, sets, uncertainty
from bitseg_jax.metrics.catalogue import (
  SCORES,
  Ensemble,
  Score,
  compute,
  names,
  pairwise_distances,
)
from bitseg_jax.metrics.regions import (
  adjusted_rand_index,
  contingency,
  covering,
  generalized_energy_distance,
  hungarian_iou,
  iou_matrix,
  rand_index,
  scores,
  variation_of_information,
)

__all__ = [
  'SCORES',
  'Ensemble',
  'Score',
  'adjusted_rand_index',
  'boundary',
  'compute',
  'contingency',
  'covering',
  'generalized_energy_distance',
  'hungarian_iou',
  'iou_matrix',
  'names',
  'pairwise_distances',
  'panoptic',
  'rand_index',
  'regions',
  'scores',
  'sets',
  'uncertainty',
  'variation_of_information',
]
