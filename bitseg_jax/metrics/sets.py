"""Scores sets of samples against sets of annotations, from pairwise scores."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from bitseg_jax import IGNORE_ID
from bitseg_jax.metrics import regions


class Ensemble(NamedTuple):
  """Samples and annotations of one image with the scores of all pairs."""

  samples: Sequence[np.ndarray]  # N id maps, integers [H, W]
  annotations: Sequence[np.ndarray]  # A id maps, -1 where unlabelled
  ari: np.ndarray  # of each annotation and sample, float [A, N]
  iou: np.ndarray  # Hungarian IoU, likewise
  among_samples: np.ndarray  # 1 - ARI of each pair, float [N, N]
  among_annotations: np.ndarray  # 1 - ARI of each pair, float [A, A]

  @classmethod
  def of(cls, samples, annotations, ari, iou) -> 'Ensemble':
    """Makes an ensemble, with the distances among each kind computed."""
    among = pairwise_distances(samples), pairwise_distances(annotations)
    return cls(samples, annotations, ari, iou, *among)

  def first(self, count: int) -> 'Ensemble':
    """Returns the ensemble of the first `count` samples only."""
    return self._replace(
      samples=self.samples[:count],
      ari=self.ari[:, :count],
      iou=self.iou[:, :count],
      among_samples=self.among_samples[:count, :count],
    )


def pairwise_distances(maps: Sequence[np.ndarray]) -> np.ndarray:
  """Computes 1 - ARI of each pair of id maps on the pixels both have labelled.

  Args:
    maps: N id maps, integers [H, W], -1 where unlabelled.

  Returns:
    float [N, N], symmetric, 0 on the diagonal.
  """
  found = np.zeros((len(maps), len(maps)))
  for i, j in itertools.combinations(range(len(maps)), 2):
    labelled = maps[j] != IGNORE_ID
    found[i, j] = 1 - regions.adjusted_rand_index(maps[i], maps[j], labelled)
  return found + found.T


def generalized_energy_distance(
  samples: regions.IdMaps,
  annotations: regions.IdMaps,
  distance: Callable[[np.ndarray, np.ndarray], float],
) -> float:
  """Scores the distance of samples S from annotations Y as distributions (GED).

  Args:
    samples, annotations: integers [N, H, W] as array or list, or one [H, W].
    distance: d(true, pred), 0 for identical maps, such as 1 - ARI.

  Returns:
    2 E d(Y, S) - E d(S, S') - E d(Y, Y') over all pairs, including a map with
    itself: 0 if both hold the same maps equally often.

  Raises:
    ValueError: if samples or annotations is empty.

  Source: Kohl et al., "A probabilistic U-Net", NeurIPS 2018.
  """
  samples = regions.as_list(samples, 'samples')
  annotations = regions.as_list(annotations, 'annotations')
  distances = lambda first, second: np.array(
    [[distance(a, b) for b in second] for a in first]
  )
  return energy_distance(
    distances(annotations, samples),
    distances(annotations, annotations),
    distances(samples, samples),
  )


def energy_distance(
  across: np.ndarray, annotations: np.ndarray, samples: np.ndarray
) -> float:
  """Computes generalized_energy_distance from the distances of all pairs.

  They are of annotations with samples, float [A, N], and among annotations,
  [A, A], and samples, [N, N].
  """
  return float(2 * across.mean() - annotations.mean() - samples.mean())


def matched_score(scores: np.ndarray) -> float:
  """Scores the best one-to-one matching of samples and annotations.

  Both sets are repeated to the least common multiple of their sizes, so that
  samples score best if they vary in the proportions of the annotators. With IoU
  this is the Hungarian-matched IoU of ambiguous segmentation.

  Args:
    scores: score of each annotation and sample, float [A, N]; higher is better.

  Source: Kohl et al., "A hierarchical probabilistic U-Net", 2019; Zbinden et
    al., "Stochastic segmentation with conditional categorical diffusion
    models", ICCV 2023.
  """
  annotations, samples = scores.shape
  size = math.lcm(annotations, samples)
  square = scores.repeat(size // annotations, 0).repeat(size // samples, 1)
  return float(square[linear_sum_assignment(square, maximize=True)].mean())
