"""Enlarges segmentations from the size they are decided at to the photo's."""

import cv2
import numpy as np


def smooth_ids(id_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Enlarges an id map with straight borders where pixels would make stairs.

  Ids cannot be interpolated, but each pixel's membership in a segment can: the
  segment wins that has the largest share of the four nearest pixels, weighted
  as by bilinear interpolation.

  Args:
    id_map: int [h, w].
    size: size (H, W) of the result, in pixels.

  Returns:
    int32 [H, W], ids of id_map. At the size of id_map it is id_map.
  """
  lines = [
    _neighbours(old, new) for old, new in zip(id_map.shape, size, strict=True)
  ]
  (top, bottom, down), (left, right, across) = lines
  nearest = (
    np.where(down < 0.5, top, bottom),
    np.where(across < 0.5, left, right),
  )
  found = id_map.astype(np.int32)[np.ix_(*nearest)]
  # Only where two of the four differ is there anything to decide.
  below = id_map[np.minimum(np.arange(len(id_map)) + 1, len(id_map) - 1)]
  edge = id_map != below
  beside = lambda a: np.concatenate([a[:, 1:], a[:, -1:]], axis=1)
  edge |= beside(edge) | (id_map != beside(id_map))
  rows, columns = np.nonzero(edge[np.ix_(top, left)])
  y, x = down[rows], across[columns]
  ids = [
    id_map[r[rows], c[columns]] for r in (top, bottom) for c in (left, right)
  ]
  weights = [a * b for a in (1 - y, y) for b in (1 - x, x)]
  best = np.zeros(len(rows))
  for one in ids:
    share = sum(
      w * (one == other) for w, other in zip(weights, ids, strict=True)
    )
    wins = share > best + 1e-9
    best[wins] = share[wins]
    found[rows[wins], columns[wins]] = one[wins]
  return found


def _neighbours(old, new):
  """The two old lines around each new one, and how near it is to the second."""
  at = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
  first = np.minimum(at.astype(int), max(old - 2, 0))
  return first, np.minimum(first + 1, old - 1), at - first


def upsample_values(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Enlarges float32 [h, w] in [0, 1] bilinearly to the photo's size [H, W]."""
  large = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
  return large.clip(0, 1)  # rounding may exceed it
