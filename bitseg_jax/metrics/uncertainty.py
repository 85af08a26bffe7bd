"""Scores whether samples disagree where, and as often as, annotators do."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from bitseg_jax import IGNORE_ID
from bitseg_jax.metrics import regions

NEAR = 0.1  # as a share of the longest side
BINS = 10  # of the reliability diagram
CONTESTED = 0.5  # disagreement above which a pixel is contested


def draw_pairs(
  valid: np.ndarray, count: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Draws pixel pairs to score, half of them near each other.

  Near means within a tenth of the longest side along both axes. Distant pairs,
  which hardly ever share an entity, would dominate otherwise.

  Args:
    valid: pixels to draw from, bool [H, W].
    count: number of pairs; fewer if the image has too few near or far ones.
    seed: seed of the draw.

  Returns:
    Flat indices of the first and of the second pixels, int [P] each.
  """
  rng = np.random.default_rng(seed)
  height, width = valid.shape
  reach = max(1, round(NEAR * max(height, width)))
  pixels = np.flatnonzero(valid)
  if not len(pixels):
    return pixels, pixels
  found = []
  for near in True, False:
    # Draws spare pairs, because some do not qualify.
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
  id_maps: Sequence[np.ndarray],
  pairs: tuple[np.ndarray, np.ndarray],
  weights: np.ndarray | None = None,
) -> np.ndarray:
  """Returns the share of maps with both pixels in one segment, float [P].

  id_maps are integers [N, H, W], as array or list, with weights float [N], and
  pairs P pixel pairs, see draw_pairs.
  """
  flat = np.reshape(id_maps, (len(id_maps), -1))
  together = flat[:, pairs[0]] == flat[:, pairs[1]]
  return np.average(together, axis=0, weights=weights).clip(0, 1)  # rounding


def count_reliability(
  predicted: np.ndarray, observed: np.ndarray
) -> np.ndarray:
  """Counts pixel pairs for a reliability diagram; images can be summed.

  Args:
    predicted: predicted probability of each pair, float [P] in [0, 1].
    observed: share of annotators who join each pair, float [P] in [0, 1].

  Returns:
    float [BINS, 4]. For the pairs whose prediction lies in a bin: their number
    and the sums of predicted, observed and squared error; the error of a pair
    is the mean over its annotators, each of whom says 0 or 1.
  """
  # k / N times 10 may come out just below a whole number.
  bins = np.minimum((predicted * BINS + 1e-9).astype(int), BINS - 1)
  errors = predicted**2 - 2 * predicted * observed + observed
  columns = np.ones_like(errors), predicted, observed, errors
  return np.stack([np.bincount(bins, c, BINS) for c in columns], axis=1)


def calibration(counts: np.ndarray) -> dict[str, float | list]:
  """Scores how well predicted probabilities agree with observed shares.

  Few samples give coarse probabilities, with which even an ideal model does not
  reach 0; so compare models at equal numbers of samples.

  Args:
    counts: float [BINS, 4], see count_reliability.

  Returns:
    'ece': mean over pairs of their bin's |predicted - observed|; 'brier': mean
    squared error against single annotators; 'bins': [predicted, observed, share
    of pairs] of each bin that is not empty. nan, nan and [] without pairs.

  Source: Guo et al., "On calibration of modern neural networks", ICML 2017;
    Brier, "Verification of forecasts expressed in terms of probability", 1950.
  """
  number, predicted, observed, errors = counts[counts[:, 0] > 0].T
  total = number.sum() if len(number) else math.nan
  bins = predicted / number, observed / number, number / total
  return {
    'ece': float(abs(predicted - observed).sum() / total),
    'brier': float(errors.sum() / total),
    'bins': np.stack(bins, axis=1).tolist(),
  }


def disagreement(id_maps: Sequence[np.ndarray]) -> np.ndarray:
  """Measures per pixel how much segmentations disagree, whatever their ids.

  It is 1 - IoU of the two segments at a pixel, averaged over pairs of maps.

  Args:
    id_maps: integers [N, H, W], as array or list, N >= 2.

  Returns:
    float32 [H, W] in [0, 1], nan where fewer than two maps have an id.
  """
  agreed, asked = np.zeros((2, *id_maps[0].shape))
  for first, second in itertools.combinations(id_maps, 2):
    both = (first != IGNORE_ID) & (second != IGNORE_ID)
    table, rows, columns = regions.contingency(first, second, both)
    iou = regions.iou_matrix(table)
    place = rows.searchsorted(first[both]), columns.searchsorted(second[both])
    agreed[both] += iou[place]
    asked += both
  with np.errstate(invalid='ignore'):
    return (1 - agreed / asked).astype(np.float32)


def contested_auroc(
  uncertainty: np.ndarray, annotations: Sequence[np.ndarray]
) -> float:
  """Scores how well uncertainty finds pixels that annotators contest (AUROC).

  A pixel is contested if the annotators' disagreement there is over 0.5. This
  holds inside a region that only some annotators divide, and between outlines
  that they draw in different places.

  Args:
    uncertainty: float [H, W], higher is less certain, such as disagreement of
      the samples; pixels of nan are left out.
    annotations: integers [A, H, W], as array or list.

  Returns:
    Probability that a contested pixel is less certain than an uncontested one;
    0.5 is chance. nan for one annotator, or if all or no pixels are contested.
  """
  if len(annotations) < 2:
    return math.nan
  truth = disagreement(annotations)
  asked = np.isfinite(truth) & np.isfinite(uncertainty)
  above, below = asked & (truth > CONTESTED), asked & (truth <= CONTESTED)
  if not above.any() or not below.any():
    return math.nan
  # How many of all pairs have the contested pixel on top; ties count half.
  low, high = np.sort(uncertainty[below]), uncertainty[above]
  won = low.searchsorted(high) + low.searchsorted(high, 'right')
  return float(won.mean() / 2 / len(low))
