"""Scores sets of samples against sets of annotations, from pairwise scores."""

import math

import numpy as np
from scipy.optimize import linear_sum_assignment


def matched_score(scores: np.ndarray) -> float:
  """Scores the best one-to-one matching of samples and annotations.

  Both sets are repeated to the least common multiple of their sizes, so that
  samples score best if they vary in the proportions of the annotators. With IoU
  this is the Hungarian-matched IoU of ambiguous segmentation.

  Args:
    scores: score of each annotation and sample, float [A, N]; higher is better.

  Returns:
    The mean score of the matched pairs.

  Source: Kohl et al., "A hierarchical probabilistic U-Net", 2019; Zbinden et
    al., "Stochastic segmentation with conditional categorical diffusion
    models", ICCV 2023.
  """
  annotations, samples = scores.shape
  size = math.lcm(annotations, samples)
  square = scores.repeat(size // annotations, 0).repeat(size // samples, 1)
  return float(square[linear_sum_assignment(square, maximize=True)].mean())


def oracle_best(scores: np.ndarray) -> float:
  """Scores the best sample: an oracle, since the annotations choose it.

  Args:
    scores: score of each annotation and sample, float [A, N]; higher is better.

  Returns:
    The highest mean score over annotations that any sample has.
  """
  return float(scores.mean(axis=0).max())


def energy_distance(
  across: np.ndarray, annotations: np.ndarray, samples: np.ndarray
) -> float:
  """Computes metrics.generalized_energy_distance from all pairs' distances.

  Args:
    across: distances between annotations and samples, float [A, N].
    annotations: distances among annotations, float [A, A].
    samples: distances among samples, float [N, N].

  Returns:
    The squared distance; 0 if both hold the same maps equally often.
  """
  return float(2 * across.mean() - annotations.mean() - samples.mean())
