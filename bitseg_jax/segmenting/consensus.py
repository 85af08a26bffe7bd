"""Combines N sampled segmentations into one, without ground truth.

The co-association of two pixels is the share of samples in which they lie in
the same segment; it does not depend on ids. `consensus` is the partition that
fits it best, `medoid` is the sample that fits it best, and `stability` tells
on which segments the samples agree. All run in numpy, on the host.
"""

import itertools

import numpy as np

from bitseg_jax import metrics, relabel

# Pixels with the same ids in all samples form an atom and move together. The
# largest atoms are clustered; the rest then join the segment they fit best.
MAX_ATOMS = 1024
_MAX_ROUNDS = 20
_MAX_SWEEPS = 20


def medoid(id_maps: np.ndarray) -> int:
  """Finds the sampled segmentation that is most like the others, by mean ARI.

  Args:
    id_maps: integers [N, H, W], without IGNORE_ID.

  Returns:
    Its index in [0, N); the first of equals.
  """
  total = np.zeros(len(id_maps))
  for i, j in itertools.combinations(range(len(id_maps)), 2):
    total[[i, j]] += metrics.adjusted_rand_index(id_maps[i], id_maps[j])
  return int(total.argmax())


def mean_ari(id_map: np.ndarray, id_maps: np.ndarray) -> float:
  """Averages the ARI of one id map [H, W] with several samples [N, H, W]."""
  return float(
    np.mean([metrics.adjusted_rand_index(other, id_map) for other in id_maps])
  )


def consensus(id_maps: np.ndarray) -> np.ndarray:
  """Improves the medoid until its expected ARI with a sample stops growing.

  Let s be the co-association of a pair of pixels, `own` the pairs in the same
  segment of a partition and m the mean of s over all pairs. The objective is

    (sum_own s - m |own|) / ((|own| + sum_all s) / 2 - m |own|)

  At its maximum v, a pair in the same segment contributes s - m - v (1/2 - m).
  If all samples agree, v = 1 and this is s - 1/2, so the majority decides. The
  less the samples agree, the fewer of them suffice. Atoms move to the segment
  in which they gain most and segments merge, until neither helps; then v is
  recomputed. No new segments are made, since the medoid rarely lacks more than
  specks. If the mean ARI with the samples has not grown, the result is the
  medoid.

  Args:
    id_maps: integers [N, H, W], without IGNORE_ID.

  Returns:
    int32 [H, W], ids 0, 1, ... in the order of their first pixels. It does not
    depend on the numbering of ids, nor on the order of samples except for which
    of several equally good medoids is first.

  Source: Fritsch and Ickstadt, "Improved criteria for clustering based on the
    posterior similarity matrix", 2009, who call the objective PEAR; maximised
    by Dinkelbach's method, which solves a linear objective for each value v.
  """
  id_maps = np.asarray(id_maps)
  start = medoid(id_maps)
  best = id_maps[start]
  if len(id_maps) > 1:
    atoms, members, areas = _atoms(id_maps)
    many = slice(0, MAX_ATOMS)
    labels = _climb(
      members[many],
      areas[many],
      relabel.by_first_appearance(members[many, start]),
    )
    found = _join_rest(members, areas, labels)[atoms].reshape(best.shape)
    if mean_ari(found, id_maps) > mean_ari(best, id_maps):
      best = found
  return relabel.by_first_appearance(best)


def stability(id_map: np.ndarray, id_maps: np.ndarray) -> np.ndarray:
  """Measures how well each segment is found again in the samples.

  Args:
    id_map: integers [H, W], ids 0, ..., K - 1.
    id_maps: integers [N, H, W], without IGNORE_ID.

  Returns:
    float32 [K] in [0, 1]: the IoU with the best segment of a sample, mean over
    samples.
  """
  best = [
    metrics.iou_matrix(metrics.contingency(id_map, sample)[0]).max(axis=1)
    for sample in id_maps
  ]
  return np.mean(best, axis=0).astype(np.float32)


def _atoms(id_maps):
  """Groups the pixels that have the same ids in all samples.

  Returns:
    The atom of each pixel [P]; the segments [A, N] that each atom lies in,
    numbered across all samples; the number of pixels float64 [A] of each atom.
    Larger atoms come first; equal ones are ordered by their first pixels.
  """
  columns, count = [], 0
  for id_map in id_maps:
    columns.append(relabel.by_first_appearance(id_map.ravel()) + count)
    count = columns[-1].max() + 1
  tuples, first, atoms, areas = np.unique(
    np.stack(columns, axis=-1),
    axis=0,
    return_index=True,
    return_inverse=True,
    return_counts=True,
  )
  order = np.lexsort((first, -areas))
  ranks = np.argsort(order)[atoms.ravel()]
  return ranks, tuples[order], areas[order].astype(np.float64)


def _shared(members, areas, labels):
  """Counts pixels that each sampled segment [R] shares with each label [K]."""
  rows, columns = members.max() + 1, labels.max() + 1
  index = members * columns + labels[:, None]
  weights = np.broadcast_to(areas[:, None], members.shape)
  table = np.bincount(index.ravel(), weights.ravel(), rows * columns)
  return table.reshape(rows, columns)


def _expected_ari(members, areas, labels):
  """Returns (objective of `consensus`, mean co-association m) of labels."""
  num_samples, pixels = members.shape[1], areas.sum()
  if pixels == 1:
    return 1.0, 1.0
  shared = _shared(members, areas, labels)
  own = (np.bincount(labels, areas) ** 2).sum() - pixels
  own_sum = (shared**2).sum() / num_samples - pixels
  all_sum = (shared.sum(axis=1) ** 2).sum() / num_samples - pixels
  mean = all_sum / (pixels**2 - pixels)
  best = (own + all_sum) / 2 - mean * own
  return ((own_sum - mean * own) / best if best > 1e-9 else 1.0), mean


def _climb(members, areas, labels):
  """Returns labels [A] that no move of an atom and no merger can improve."""
  value, mean = _expected_ari(members, areas, labels)
  for _ in range(_MAX_ROUNDS):
    needed = mean + value * (0.5 - mean)
    found = _search(members, areas, labels, needed)
    better, _ = _expected_ari(members, areas, found)
    if better <= value + 1e-9:
      break
    value, labels = better, found
  return labels


def _gains(members, shared, needed):
  """Returns what each atom [A] would gain, per pixel, in each label [K]."""
  num_samples = members.shape[1]
  together = sum(shared[members[:, n]] for n in range(num_samples))
  # Each column of the table counts its pixels once per sample.
  sizes = shared.sum(axis=0) / num_samples
  return together / num_samples - needed * sizes


def _search(members, areas, labels, needed):
  """Moves atoms and merges labels while the sum over pairs of s - needed grows.

  Args:
    members, areas: as from `_atoms`.
    labels: int [A], labels to start from.
    needed: co-association above which it is better to join a pair.

  Returns:
    int32 [A], numbered by first appearance.
  """
  labels, least = labels.copy(), 1e-9 * areas.sum()
  own = areas * (1 - needed)  # leaves out pairs within the atom
  for _ in range(_MAX_SWEEPS):
    shared = _shared(members, areas, labels)
    gains = _gains(members, shared, needed)
    here = gains[np.arange(len(labels)), labels] - own
    moved = False
    for a in np.flatnonzero(gains.max(axis=1) > here + least):
      # Other atoms have moved since, so the gain is computed anew.
      gain = _gains(members[a : a + 1], shared, needed)[0]
      gain[labels[a]] -= own[a]
      target = int(gain.argmax())
      if gain[target] <= gain[labels[a]] + least:
        continue
      shared[members[a], labels[a]] -= areas[a]
      shared[members[a], target] += areas[a]
      labels[a], moved = target, True
    merged = _merge(labels, shared, members.shape[1], needed)
    labels = relabel.by_first_appearance(labels)
    if not moved and not merged:
      break
  return labels


def _merge(labels, shared, num_samples, needed):
  """Merges the two labels that gain most, in place, until no pair gains."""
  sizes = shared.sum(axis=0) / num_samples
  gains = shared.T @ shared / num_samples - needed * np.outer(sizes, sizes)
  np.fill_diagonal(gains, -np.inf)
  merged = False
  while gains.max() > 1e-9 * sizes.sum() ** 2:
    kept, gone = sorted(np.unravel_index(gains.argmax(), gains.shape))
    labels[labels == gone] = kept
    # Gains add up, because the objective is a sum over pairs.
    gains[kept] += gains[gone]
    gains[:, kept] += gains[:, gone]
    gains[gone] = gains[:, gone] = gains[kept, kept] = -np.inf
    merged = True
  return merged


def _join_rest(members, areas, labels):
  """Labels all atoms, given labels of the first, largest ones."""
  count = len(labels)
  if count == len(members):
    return labels
  value, mean = _expected_ari(members[:count], areas[:count], labels)
  needed = mean + value * (0.5 - mean)
  shared = np.zeros((members.max() + 1, labels.max() + 1))
  known = _shared(members[:count], areas[:count], labels)
  shared[: len(known)] = known
  rest = [
    _gains(members[start : start + count], shared, needed).argmax(axis=1)
    for start in range(count, len(members), count)
  ]
  return np.concatenate([labels, *rest])
