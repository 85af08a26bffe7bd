"""Compares samples with a distribution of annotations that is exactly known."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bitseg_jax import metrics
from bitseg_jax.evaluation import consensus


class Comparison(NamedTuple):
  """How the samples of one image compare with the truth.

  Attributes:
    shares: float [M], share of the samples that are nearest to each mode.
    energy_distance: squared energy distance between samples and truth, with
      1 - ARI as the distance. Its mean is 0 for samples of the truth, so it may
      come out slightly below.
    reliability: of "both pixels lie in one entity", said by the samples and
      true, see metrics.uncertainty.count_reliability.
    confidence: float [K, 2], of each segment of the consensus: its stability in
      the samples, and in the truth.
  """

  shares: np.ndarray
  energy_distance: float
  reliability: np.ndarray
  confidence: np.ndarray


def compare(
  samples: np.ndarray, modes: np.ndarray, probabilities: np.ndarray
) -> Comparison:
  """Compares the samples of one image with all annotations it may get.

  Args:
    samples: integers [N, H, W], N >= 2, all pixels labelled.
    modes: integers [M, H, W], the possible annotations, all pixels labelled.
    probabilities: float [M], of each mode; they add up to 1.
  """
  count, shape = len(samples), samples.shape[1:]
  across = np.array(
    [[1 - metrics.adjusted_rand_index(m, s) for s in samples] for m in modes]
  )
  among_modes = probabilities @ metrics.pairwise_distances(modes)
  # Pairs of one sample with itself would count as agreement.
  among_samples = metrics.pairwise_distances(samples).sum()
  distance = (
    2 * probabilities @ across.mean(axis=1)
    - among_modes @ probabilities
    - among_samples / (count * (count - 1))
  )
  pairs = metrics.uncertainty.draw_pairs(np.ones(shape, bool))
  together = metrics.uncertainty.share_together
  answer = np.unique(consensus.consensus(samples), return_inverse=True)[1]
  answer = answer.reshape(shape)
  said = consensus.stability(answer, samples)
  true = [consensus.stability(answer, mode[None]) for mode in modes]
  return Comparison(
    np.bincount(across.argmin(axis=0), minlength=len(modes)) / count,
    float(distance),
    metrics.uncertainty.count_reliability(
      together(samples, pairs), together(modes, pairs, probabilities)
    ),
    np.stack([said, probabilities @ np.array(true)], axis=1),
  )


def summarize(found: Sequence[Comparison]) -> dict[str, float]:
  """Averages comparisons over images.

  Returns:
    'ged', the mean energy distance; 'ece', the calibration error of "both
    pixels lie in one entity"; 'confidence', 'true_confidence' and
    'confidence_error', means over the segments of what the samples say, of what
    is true, and of the difference between the two without its sign.
  """
  reliability = sum(one.reliability for one in found)
  said, true = np.concatenate([one.confidence for one in found]).T
  return {
    'ged': float(np.mean([one.energy_distance for one in found])),
    'ece': metrics.uncertainty.calibration(reliability)['ece'],
    'confidence': float(said.mean()),
    'true_confidence': float(true.mean()),
    'confidence_error': float(abs(said - true).mean()),
  }
