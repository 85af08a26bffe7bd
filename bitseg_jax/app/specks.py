"""Joins pieces of segments that are too small to matter to their neighbours."""

import numpy as np
from scipy.sparse import coo_array
from skimage import measure

from bitseg_jax import relabel


def join(
  id_map: np.ndarray, min_area: float, keep: np.ndarray | None = None
) -> np.ndarray:
  """Joins specks to the segment with which they share most of their border.

  A speck is a connected piece of a segment (by sides, not corners) with less
  than the least area. The largest piece of the photo is never one. A speck
  among specks joins what they have joined.

  Args:
    id_map: int [H, W], ids 0, ..., K - 1.
    min_area: least area of a piece, as a share of the photo.
    keep: bool [H, W], pixels whose pieces stay; None: none.

  Returns:
    int32 [H, W], ids without gaps.
  """
  pieces = measure.label(id_map, background=-1, connectivity=1) - 1
  _, first = np.unique(pieces, return_index=True)
  ids = id_map.ravel()[first]
  areas = np.bincount(pieces.ravel())
  stays = areas >= min_area * id_map.size
  stays[areas.argmax()] = True
  if keep is not None:
    stays[pieces[keep]] = True
  borders, found = _borders(pieces), np.where(stays, ids, -1)
  while (found < 0).any():
    # How long the border of each piece is with each segment, as far as known.
    known = np.flatnonzero(found >= 0)
    member = coo_array(
      (np.ones(len(known)), (known, found[known])), (len(ids), ids.max() + 1)
    )
    shared = (borders @ member.tocsr()).toarray()
    ready = (found < 0) & shared.any(axis=1)
    found[ready] = shared[ready].argmax(axis=1)
  return relabel.compact(found[pieces])[0]


def split_disconnected(
  id_map: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
  """Gives pieces of a segment that do not touch ids of their own.

  Args:
    id_map: int [H, W]. Pixels touch by their sides or corners.
    known: int [H, W], pieces with pixels of one known entity stay one segment;
      -1 where nothing is said.

  Returns:
    int32 [H, W], ids without gaps.
  """
  pieces = measure.label(id_map, background=-1, connectivity=2) - 1
  if known is None:
    return relabel.compact(pieces)[0]
  said = known >= 0
  name_of = np.arange(pieces.max() + 1)
  for entity in np.unique(known[said]):
    marked = np.unique(pieces[known == entity])
    name_of[marked] = marked[0]
  return relabel.compact(name_of[pieces])[0]


def _borders(pieces):
  """How many sides of pixels two pieces share: sparse [P, P], symmetric."""
  beside = pieces[:, 1:].ravel(), pieces[:, :-1].ravel()
  below = pieces[1:].ravel(), pieces[:-1].ravel()
  first, second = np.concatenate([beside, below], axis=1)
  differ = first != second
  first, second = first[differ], second[differ]
  count = int(pieces.max()) + 1
  one_way = coo_array((np.ones(len(first)), (first, second)), (count, count))
  return (one_way + one_way.T).tocsr()
