"""Renumbers the ids of an id map (numpy, on the host), for every module."""

import numpy as np


def compact(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Renumbers integers of any shape as 0, 1, ... in ascending order.

  Returns:
    (ranks, present): the rank of each id, int32 with the shape of ids, and the
    distinct ids in ascending order, integers [K]. present[ranks] equals ids.
  """
  if not ids.size:
    return ids.astype(np.int32), ids.ravel()
  low, high = int(ids.min()), int(ids.max())
  if high - low > 4 * ids.size:
    present, ranks = np.unique(ids, return_inverse=True)
    return ranks.reshape(ids.shape).astype(np.int32), present
  # Ids are nearly always small; then a lookup is much faster than sorting.
  offset = ids.astype(np.intp) - low
  seen = np.zeros(high - low + 1, bool)
  seen[offset] = True
  ranks = (np.cumsum(seen) - 1).astype(np.int32)
  return ranks[offset], np.flatnonzero(seen) + low


def by_first_appearance(ids: np.ndarray) -> np.ndarray:
  """Renumbers integers of any shape as 0, 1, ... as they first appear.

  So id maps that differ in the names of their ids alone become equal.
  """
  _, first, ranks = np.unique(ids, return_index=True, return_inverse=True)
  order = np.argsort(np.argsort(first)).astype(np.int32)
  return order[ranks].reshape(np.shape(ids))
