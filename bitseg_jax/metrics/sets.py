"""Sets of samples against sets of annotations, from the scores of all pairs."""

import math

import numpy as np
from scipy.optimize import linear_sum_assignment


def matched_score(scores: np.ndarray) -> float:
  """Mean score of samples and annotations matched one to one.

  Both sets are repeated to the least common multiple of their sizes, so that
  the samples must share themselves out as the annotators do. With IoU as the
  score this is the Hungarian-matched IoU of ambiguous segmentation.

  Args:
    scores: float [A, N], of each annotation and sample; higher is better.

  Returns:
    The mean of the best matching.

  Source: Kohl et al., "A hierarchical probabilistic U-Net", 2019; Zbinden et
    al., "Stochastic segmentation with conditional categorical diffusion
    models", ICCV 2023.
  """
  annotations, samples = scores.shape
  size = math.lcm(annotations, samples)
  square = scores.repeat(size // annotations, 0).repeat(size // samples, 1)
  return float(square[linear_sum_assignment(square, maximize=True)].mean())


def oracle_best(scores: np.ndarray) -> float:
  """Score of the best sample: an oracle, for it looks at the annotations.

  Args:
    scores: float [A, N], of each annotation and sample; higher is better.

  Returns:
    The highest mean over annotations of any sample.
  """
  return float(scores.mean(axis=0).max())


def energy_distance(
  across: np.ndarray, annotations: np.ndarray, samples: np.ndarray
) -> float:
  """metrics.generalized_energy_distance from the distances of all pairs.

  Args:
    across: float [A, N], of annotations and samples.
    annotations: float [A, A], among annotations.
    samples: float [N, N], among samples.

  Returns:
    The squared distance; 0 if both hold the same maps equally often.
  """
  return float(2 * across.mean() - annotations.mean() - samples.mean())
