"""From N samples to one answer, without an oracle: numpy, host.

Two pixels lie in one segment in a share of the samples: their co-association.
It holds what the samples say, whatever their ids. `consensus` is the partition
that fits it best, `medoid` the sample that does, `stability` says which
segments the samples agree on.
"""

import itertools

import numpy as np

from bitseg_jax import metrics, relabel

# Pixels with the same ids in all samples move as one, an atom. So many atoms
# are clustered, the largest; smaller ones then join the segment they fit best.
MAX_ATOMS = 1024
_MAX_ROUNDS = 20
_MAX_SWEEPS = 20


def medoid(id_maps: np.ndarray) -> int:
  """Index of the map with the highest mean ARI with the others.

  Args:
    id_maps: integers [N, H, W], without IGNORE_ID.

  Returns:
    Which one; the first of equals.
  """
  total = np.zeros(len(id_maps))
  for i, j in itertools.combinations(range(len(id_maps)), 2):
    total[[i, j]] += metrics.adjusted_rand_index(id_maps[i], id_maps[j])
  return int(total.argmax())


def mean_ari(id_map: np.ndarray, id_maps: np.ndarray) -> float:
  """Mean ARI of one map, integers [H, W], with each of several [N, H, W]."""
  return float(
    np.mean([metrics.adjusted_rand_index(other, id_map) for other in id_maps])
  )


def consensus(id_maps: np.ndarray) -> np.ndarray:
  """The medoid, improved until its expected ARI with a sample grows no more.

  With s the co-association of a pair of pixels, `own` the pairs in the same
  segment of a partition and m the mean of s over all pairs, it climbs

    (sum_own s - m |own|) / ((|own| + sum_all s) / 2 - m |own|)

  Where this is at its maximum v, a pair in the same segment counts
  s - m - v (1/2 - m). With v = 1, as if all agreed, that is s - 1/2, and the
  majority decides; the less the samples agree, the fewer of them suffice.
  Atoms move to the segment they gain most in and segments merge, until neither
  helps; then v is computed anew. No segment is made: of what the medoid lacks
  there is rarely more than specks. Should the mean ARI with the samples not
  have grown, the medoid is returned.

  Args:
    id_maps: integers [N, H, W], without IGNORE_ID.

  Returns:
    int32 [H, W], ids 0, 1, ... in the order of their first pixels: it does not
    depend on how ids are numbered, nor on the order of the samples (save which
    of several equally good medoids is first).

  Source: Fritsch and Ickstadt, "Improved criteria for clustering based on the
    posterior similarity matrix", 2009, who call the fraction PEAR; maximised
    by Dinkelbach's method, a linear objective for each value of it.
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
  """How well each segment is found again in the samples.

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
    The atom of each pixel [P]; the segments [A, N] each atom lies in, numbered
    through all samples; the pixels float64 [A] in each. Large atoms first, of
    equal ones the one whose first pixel comes first.
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
  """Pixels that each segment of each sample [R] shares with each label [K]."""
  rows, columns = members.max() + 1, labels.max() + 1
  index = members * columns + labels[:, None]
  weights = np.broadcast_to(areas[:, None], members.shape)
  table = np.bincount(index.ravel(), weights.ravel(), rows * columns)
  return table.reshape(rows, columns)


def _expected_ari(members, areas, labels):
  """(the fraction of `consensus`, mean co-association m)."""
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
  """Labels [A] from which no move of an atom and no merger helps."""
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
  """What each atom [A] would gain, per pixel, in each label [K]."""
  num_samples = members.shape[1]
  together = sum(shared[members[:, n]] for n in range(num_samples))
  # Each column of the table counts its pixels once for every sample.
  sizes = shared.sum(axis=0) / num_samples
  return together / num_samples - needed * sizes


def _search(members, areas, labels, needed):
  """Moves atoms and merges labels while the sum over pairs of s - needed grows.

  Args:
    members, areas: as from `_atoms`.
    labels: int [A], where to start.
    needed: co-association from which on a pair is better joined.

  Returns:
    int32 [A], numbered by first appearance.
  """
  labels, least = labels.copy(), 1e-9 * areas.sum()
  own = areas * (1 - needed)  # an atom is no reason to stay where it is
  for _ in range(_MAX_SWEEPS):
    shared = _shared(members, areas, labels)
    gains = _gains(members, shared, needed)
    here = gains[np.arange(len(labels)), labels] - own
    moved = False
    for a in np.flatnonzero(gains.max(axis=1) > here + least):
      # Others have moved since: look again.
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
  """Merges the two labels that gain most, in place, while any two gain."""
  sizes = shared.sum(axis=0) / num_samples
  gains = shared.T @ shared / num_samples - needed * np.outer(sizes, sizes)
  np.fill_diagonal(gains, -np.inf)
  merged = False
  while gains.max() > 1e-9 * sizes.sum() ** 2:
    kept, gone = sorted(np.unravel_index(gains.argmax(), gains.shape))
    labels[labels == gone] = kept
    # The objective is a sum over pairs, so gains simply add up.
    gains[kept] += gains[gone]
    gains[:, kept] += gains[:, gone]
    gains[gone] = gains[:, gone] = gains[kept, kept] = -np.inf
    merged = True
  return merged


def _join_rest(members, areas, labels):
  """Labels of all atoms, where the first, largest ones have theirs."""
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
