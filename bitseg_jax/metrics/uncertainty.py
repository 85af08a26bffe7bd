"""Whether a model knows what it does not know: samples against annotators."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from bitseg_jax import IGNORE_ID
from bitseg_jax.metrics import regions

NEAR = 0.1  # of the longest side
BINS = 10
CONTESTED = 0.5


def draw_pairs(
  valid: np.ndarray, count: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Draws pixel pairs, half of them near each other.

  Of all pairs of an image few are near, and those far apart hardly ever share
  an entity: without the strata only these would count.

  Args:
    valid: bool [H, W], where to draw.
    count: how many pairs; fewer where the image has too few near or far ones.
    seed: of the draw.

  Returns:
    Flat indices of the first and the second pixels. Near is within a tenth of
    the longest side along both axes.
  """
  rng = np.random.default_rng(seed)
  height, width = valid.shape
  reach = max(1, round(NEAR * max(height, width)))
  pixels = np.flatnonzero(valid)
  if not len(pixels):
    return pixels, pixels
  found = []
  for near in True, False:
    # Not every draw is a pair that will do, but most are.
    y, x = np.divmod(rng.choice(pixels, 4 * count), width)
    if near:
      to_y, to_x = np.add(rng.integers(-reach, reach + 1, (2, len(y))), (y, x))
    else:
      to_y, to_x = np.divmod(rng.choice(pixels, len(y)), width)
    apart = np.maximum(abs(to_y - y), abs(to_x - x))
    good = (apart > 0) & (apart <= reach) if near else apart > reach
    good &= (to_y >= 0) & (to_y < height) & (to_x >= 0) & (to_x < width)
    pair = (y * width + x)[good], (to_y * width + to_x)[good]
    inside = valid.ravel()[pair[1]]
    found.append([ends[inside][: count // 2] for ends in pair])
  return tuple(np.concatenate(ends) for ends in zip(*found, strict=True))


def share_together(
  id_maps: Sequence[np.ndarray], pairs: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
  """Share of the maps that put both pixels into one segment: float [P].

  Args:
    id_maps: integers [N, H, W], as array or list.
    pairs: as from draw_pairs.
  """
  flat = np.reshape(id_maps, (len(id_maps), -1))
  return (flat[:, pairs[0]] == flat[:, pairs[1]]).mean(axis=0)


def count_reliability(
  predicted: np.ndarray, observed: np.ndarray
) -> np.ndarray:
  """Counts of a reliability diagram; add those of several images.

  Args:
    predicted: probabilities [P].
    observed: share of yes among those who were asked, [P].

  Returns:
    float [BINS, 4], over the pairs whose prediction lies in each bin: their
    number, sum of predicted, sum of observed, sum of squared errors (mean over
    those asked, each of whom said 0 or 1).
  """
  # k / N times 10 may come out just under a whole number
  bins = np.minimum((predicted * BINS + 1e-9).astype(int), BINS - 1)
  errors = predicted**2 - 2 * predicted * observed + observed
  columns = np.ones_like(errors), predicted, observed, errors
  return np.stack([np.bincount(bins, c, BINS) for c in columns], axis=1)


def calibration(counts: np.ndarray) -> dict[str, float | list]:
  """How far predicted probabilities can be taken at their word.

  Few samples make coarse probabilities: even samples drawn as the annotators
  are do not reach 0, so compare at equal numbers of samples.

  Args:
    counts: as from count_reliability.

  Returns:
    ece: mean over pairs of |predicted - observed| of their bin; brier: mean
    squared error against single annotators; bins: [predicted, observed, share
    of the pairs] of each bin that is not empty. nan, nan and [] without pairs.

  Source: Guo et al., "On calibration of modern neural networks", ICML 2017;
    Brier, "Verification of forecasts expressed in terms of probability", 1950.
  """
  counts = counts[counts[:, 0] > 0]
  if not len(counts):
    return {'ece': float('nan'), 'brier': float('nan'), 'bins': []}
  number, predicted, observed, errors = counts.T
  total = number.sum()
  return {
    'ece': float(abs(predicted - observed).sum() / total),
    'brier': float(errors.sum() / total),
    'bins': np.stack(
      [predicted / number, observed / number, number / total], axis=1
    ).tolist(),
  }


def disagreement(id_maps: Sequence[np.ndarray]) -> np.ndarray:
  """How differently segmentations see each pixel, whatever their ids.

  1 - the IoU of the two segments a pixel lies in, mean over pairs of maps.

  Args:
    id_maps: integers [N, H, W], as array or list, N at least 2.

  Returns:
    float32 [H, W] in [0, 1], 0 where a pixel's segments are the same in all;
    nan where fewer than two maps have anything but IGNORE_ID.
  """
  agreed, asked = np.zeros((2, *id_maps[0].shape))
  for first, second in itertools.combinations(id_maps, 2):
    both = (first != IGNORE_ID) & (second != IGNORE_ID)
    table, rows, columns = regions.contingency(first, second, both)
    iou = regions.iou_matrix(table)
    agreed[both] += iou[
      np.searchsorted(rows, first[both]),
      np.searchsorted(columns, second[both]),
    ]
    asked += both
  with np.errstate(invalid='ignore'):
    return (1 - agreed / asked).astype(np.float32)


def contested_area(
  uncertainty: np.ndarray, annotations: Sequence[np.ndarray]
) -> float:
  """Area under the ROC curve of uncertainty, for where annotators disagree.

  A pixel is contested if its disagreement is over 0.5: if the entities that
  two annotators put it into overlap, on average, with an IoU under one half,
  which would be no match (as in panoptic quality). That is so inside a region
  that one cuts up and another does not, and between borders drawn apart.

  Args:
    uncertainty: float [H, W], higher is less certain, such as disagreement of
      the samples.
    annotations: integers [A, H, W], as array or list.

  Returns:
    Chance that a contested pixel is less certain than an uncontested one; 0.5
    knows nothing. nan with one annotator, or if all or no pixels are contested.
    Pixels that under two annotators labelled, or of no uncertainty (nan), are
    left out.
  """
  if len(annotations) < 2:
    return float('nan')
  truth = disagreement(annotations)
  asked = np.isfinite(truth) & np.isfinite(uncertainty)
  return roc_area(uncertainty[asked], truth[asked] > CONTESTED)


def roc_area(scores: np.ndarray, positive: np.ndarray) -> float:
  """Chance that a positive has the higher score, ties counting one half.

  Args:
    scores: float [P].
    positive: bool [P].

  Returns:
    The area under the ROC curve; nan without positives or without negatives.
  """
  high = int(positive.sum())
  low = len(positive) - high
  if not high or not low:
    return float('nan')
  ranks = rankdata(scores)[positive].sum() - high * (high + 1) / 2
  return float(ranks / (high * low))
