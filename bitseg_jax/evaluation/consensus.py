"""Combines N sampled segmentations into one, without ground truth.

The co-association of two pixels is the share of samples in which they lie in
the same segment; it does not depend on ids. `consensus` is the partition that
fits it best, `medoid` is the sample that fits it best, and `stability` tells
on which segments the samples agree. All run in numpy, on the host.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from bitseg_jax import metrics, relabel
from bitseg_jax.data import transforms

Box = tuple[int, int, int, int]  # top, left, bottom, right, in pixels

# Pixels with the same ids in all samples form an atom and move together. The
# largest atoms are clustered; the rest then join the segment they fit best.
MAX_ATOMS = 1024
_NEAR = 4  # pixels
_MAX_ROUNDS = 20
_MAX_SWEEPS = 20


def medoid(id_maps: np.ndarray) -> int:
  """Finds which of N samples is most like the others, by mean ARI.

  They are integers [N, H, W], without IGNORE_ID. Of equals it is the first.
  """
  total = np.zeros(len(id_maps))
  for i, j in itertools.combinations(range(len(id_maps)), 2):
    total[[i, j]] += metrics.adjusted_rand_index(id_maps[i], id_maps[j])
  return int(total.argmax())


def mean_ari(id_map: np.ndarray, id_maps: np.ndarray) -> float:
  """Averages the ARI of one id map [H, W] with several samples [N, H, W]."""
  each = [metrics.adjusted_rand_index(other, id_map) for other in id_maps]
  return float(np.mean(each))


def consensus(
  id_maps: np.ndarray,
  regions: np.ndarray | None = None,
  others: Sequence[tuple[Box, np.ndarray, float]] = (),
) -> np.ndarray:
  """Improves the medoid until its expected ARI with a sample stops growing.

  Let s be the co-association of a pair of pixels, `own` the pairs in the same
  segment of a partition and m the mean of s over all pairs. The objective is

    (sum_own s - m |own|) / ((|own| + sum_all s) / 2 - m |own|)

  At its maximum v, a pair in the same segment contributes s - m - v (1/2 - m).
  If all samples agree, v = 1 and this is s - 1/2: the majority decides. Regions
  move to the segment in which they gain most and segments merge, until nothing
  helps; then v is recomputed.

  Args:
    id_maps: integers [N, h, w], without IGNORE_ID.
    regions: int [H, W], ids 0, ..., R - 1 of regions that are never cut, R up
      to a few thousand. The id maps are stretched to its size, and regions may
      also leave all segments of the medoid for a new one. None: pixels stay
      together that all samples have in one segment; new segments are not made
      (they would be specks), and the result is no worse than the medoid.
    others: what else counts, with regions: a part of the photo, as a box in
      pixels of regions; integers [n, h', w'], partitions of it; and as how many
      samples each counts, for pairs of pixels in the part.

  Returns:
    int32 [H, W], or [h, w] without regions; ids 0, 1, ... in the order of their
    first pixels. How ids are numbered does not matter.

  Source: Fritsch and Ickstadt, "Improved criteria for clustering based on the
    posterior similarity matrix", 2009 (PEAR), by Dinkelbach's method.
  """
  id_maps = np.asarray(id_maps)
  best = id_maps[medoid(id_maps)]
  if regions is not None:
    samples = [((0, 0, *regions.shape), id_maps, 1.0), *others]
    together, pairs = _count_pairs(regions, samples)
    of_medoid = _counts(regions, best).argmax(axis=1)
    # From the one start no segment is cut in two, from the other some merge.
    starts = of_medoid, np.arange(len(pairs))
    climbed = [_climb(together, pairs, start, new=True) for start in starts]
    labels, _ = max(climbed, key=lambda found: found[1])
    return relabel.by_first_appearance(labels[regions])
  if len(id_maps) > 1:
    found = _of_atoms(id_maps, best)
    if mean_ari(found, id_maps) > mean_ari(best, id_maps):
      best = found
  return relabel.by_first_appearance(best)


def by_majority(id_map: np.ndarray, regions: np.ndarray) -> np.ndarray:
  """Gives each region the segment in which most of it lies.

  The id map, integers [h, w], is stretched to the size of regions, int [H, W],
  ids 0, ..., R - 1. Returns int32 [H, W], numbered as by `consensus`.
  """
  of_region = _counts(regions, id_map).argmax(axis=1)
  return relabel.by_first_appearance(of_region[regions])


def stability(id_map: np.ndarray, id_maps: Sequence[np.ndarray]) -> np.ndarray:
  """Measures how well each segment is found again in the samples.

  For ids 0, ..., K - 1 in the id map [H, W] and samples, integers [H, W] each,
  it is float32 [K] in [0, 1]: the IoU with the best segment of a sample, mean
  over samples.
  """
  best = [_iou(id_map, sample).max(axis=1) for sample in id_maps]
  return np.mean(best, axis=0).astype(np.float32)


def doubt(id_map: np.ndarray, id_maps: np.ndarray) -> np.ndarray:
  """Tells where an answer may be wrong: where its samples differ, and how much.

  It is the product of 1 - IoU of the pixel's segment in the answer and in a
  sample, mean over samples, and of how uncertain it is which pixels near it are
  in its segment: 4 p (1 - p) for the share p of samples that say so, mean over
  the pixels within _NEAR. The first alone is large all over a segment that some
  samples divide, the second near every border that moves.

  Args:
    id_map: integers [H, W], ids 0, ..., K - 1.
    id_maps: integers [N, H, W], without IGNORE_ID.

  Returns:
    float32 [H, W] in [0, 1].
  """
  height, width = id_map.shape
  differs, torn, seen = np.zeros((3, height, width))
  for sample in id_maps:
    iou = _iou(id_map, sample)[id_map, relabel.compact(sample)[0]]
    differs += (1 - iou) / len(id_maps)
  steps = itertools.product(range(_NEAR + 1), range(-_NEAR, _NEAR + 1))
  for down, across in steps:
    if (down, across) <= (0, 0):
      continue
    left, right = max(-across, 0), max(across, 0)
    here = np.s_[: max(height - down, 0), left : max(width - right, 0)]
    there = np.s_[down:, right : max(width - left, 0)]
    together = (id_maps[:, *here] == id_maps[:, *there]).mean(axis=0)
    for place in here, there:
      torn[place] += 4 * together * (1 - together)
      seen[place] += 1
  return (differs * torn / np.maximum(seen, 1)).astype(np.float32)


def trust(others: Sequence[np.ndarray], id_maps: np.ndarray) -> np.ndarray:
  """Measures how far K partitions made by other means are like the samples.

  For integers [h, w] each and N >= 2 samples [N, h, w] it is float64 [K] in
  [0, 1]: the mean ARI with a sample, as a share of that among the samples.
  """
  pairs = itertools.combinations(id_maps, 2)
  alike = np.mean([metrics.adjusted_rand_index(*pair) for pair in pairs])
  found = np.array([mean_ari(other, id_maps) for other in others])
  return np.clip(found / max(alike, 0.05), 0, 1)


def _iou(id_map, sample):
  return metrics.iou_matrix(metrics.contingency(id_map, sample)[0])


def _counts(regions, id_map):
  """Pixels of each region [R] in each segment [K] of a map at any size."""
  ids, present = relabel.compact(transforms.resize_ids(id_map, regions.shape))
  rows, columns = int(regions.max()) + 1, len(present)
  index = regions * np.intp(columns) + ids
  counts = np.bincount(index.ravel(), minlength=rows * columns)
  return counts.reshape(rows, columns).astype(np.float64)


def _count_pairs(regions, samples):
  """Counts pairs of pixels between regions, float64 [R, R] twice.

  First those that lie in the same segment, as the weighted mean over samples
  (as `others` of `consensus`) that see them; then all pairs.
  """
  areas = np.bincount(regions.ravel()).astype(np.float64)
  together, seen = np.zeros((2, len(areas), len(areas)))
  for (top, left, bottom, right), id_maps, weight in samples:
    inside = regions[top:bottom, left:right]
    counts = [_counts(inside, id_map) for id_map in id_maps]
    counts = np.concatenate(counts, axis=1)
    counts = np.pad(counts, ((0, len(areas) - len(counts)), (0, 0)))
    own = np.bincount(inside.ravel(), minlength=len(areas)).astype(np.float64)
    together += weight * (counts @ counts.T)
    seen += weight * len(id_maps) * np.outer(own, own)
  pairs = np.outer(areas, areas)
  return together / seen * pairs, pairs


def _of_atoms(id_maps, start):
  """The consensus of which pixels stay together that all samples have so."""
  _, first, atoms, areas = np.unique(
    id_maps.reshape(len(id_maps), -1),
    axis=1,
    return_index=True,
    return_inverse=True,
    return_counts=True,
  )
  order = np.lexsort((first, -areas))  # the largest first
  atoms = np.argsort(order)[atoms.ravel()].reshape(start.shape)
  counts = np.concatenate([_counts(atoms, ids) for ids in id_maps], axis=1)
  areas = areas[order].astype(np.float64)
  large, rest = counts[:MAX_ATOMS], counts[MAX_ATOMS:]
  together = large @ large.T / len(id_maps)
  pairs = np.outer(areas[:MAX_ATOMS], areas[:MAX_ATOMS])
  begin = start.ravel()[first[order[:MAX_ATOMS]]]
  labels, value = _climb(together, pairs, begin, new=False)
  if len(rest):
    _, mean = _expected_ari(together, pairs, labels)
    near = rest @ _sums(large, labels).T / len(id_maps)
    sizes = np.bincount(labels, areas[:MAX_ATOMS])
    # Co-association above which it is better to join a pair, as in _climb.
    needed = mean + value * (0.5 - mean)
    gains = near - needed * np.outer(areas[MAX_ATOMS:], sizes)
    labels = np.concatenate([labels, gains.argmax(axis=1)])
  return labels[atoms]


def _sums(rows, labels):
  """Adds up rows [R, ...] of the same label: [K, ...]."""
  order = np.argsort(labels, kind='stable')
  starts = np.searchsorted(labels[order], np.arange(labels.max() + 1))
  return np.add.reduceat(rows[order], starts, axis=0)


def _expected_ari(together, pairs, labels):
  """Returns (objective of `consensus`, mean co-association m) of labels."""
  pixels = np.sqrt(pairs.sum())
  if pixels < 1.5:
    return 1.0, 1.0
  same = labels[:, None] == labels
  own, own_sum = pairs[same].sum() - pixels, together[same].sum() - pixels
  all_sum = together.sum() - pixels
  mean = all_sum / (pixels**2 - pixels)
  best = (own + all_sum) / 2 - mean * own
  return ((own_sum - mean * own) / best if best > 1e-9 else 1.0), mean


def _climb(together, pairs, labels, new):
  """Labels [R] that no move and no merger can improve, and their objective.

  With `new`, regions may also move to labels that were not there.
  """
  labels = relabel.by_first_appearance(labels)
  value, mean = _expected_ari(together, pairs, labels)
  least = 1e-9 * pairs.sum()  # what a change must gain
  for _ in range(_MAX_ROUNDS):
    # What it gains to have two regions under one label.
    gains = together - (mean + value * (0.5 - mean)) * pairs
    found = labels
    for _ in range(_MAX_SWEEPS):
      before = found
      found = _merge(_move(gains, found, new, least), gains, least)
      if (found == before).all():
        break
    better, _ = _expected_ari(together, pairs, found)
    if better <= value + 1e-9:
      break
    value, labels = better, found
  return labels, value


def _move(gains, labels, new, least):
  """Moves regions one by one to the label that gains most."""
  labels, own = labels.copy(), np.diag(gains)
  # [K, R], with new labels always an empty one, which gains nothing.
  of_label = np.pad(_sums(gains, labels), ((0, int(new)), (0, 0)))
  for i in range(len(labels)):
    gain, here = of_label[:, i].copy(), labels[i]
    gain[here] -= own[i]
    target = int(gain.argmax())
    if gain[target] <= gain[here] + least:
      continue
    of_label[here] -= gains[i]
    of_label[target] += gains[i]
    labels[i] = target
    if new and target == len(of_label) - 1:
      of_label = np.pad(of_label, ((0, 1), (0, 0)))
  return relabel.by_first_appearance(labels)


def _merge(labels, gains, least):
  """Merges the two labels that gain most, again and again."""
  labels = labels.copy()
  table = _sums(_sums(gains, labels).T, labels)  # [K, K]
  np.fill_diagonal(table, -np.inf)
  while table.max() > least:
    kept, gone = sorted(np.unravel_index(table.argmax(), table.shape))
    labels[labels == gone] = kept
    # Gains add up, because the objective is a sum over pairs.
    table[kept] += table[gone]
    table[:, kept] += table[:, gone]
    table[gone] = table[:, gone] = table[kept, kept] = -np.inf
  return relabel.by_first_appearance(labels)
