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
  height, width = id_map.shape
  (top, down), (left, across) = map(_line_before, id_map.shape, size)
  padded = np.pad(id_map, (0, 1), 'edge')
  above, below = padded[:height], padded[1:]
  four = np.stack([a[:, x : x + width] for a in (above, below) for x in (0, 1)])
  found = id_map.astype(np.int32)[np.ix_(top, left)]
  # Only where the four differ is there anything to decide.
  differ = (four != four[0]).any(axis=0)
  rows, columns = np.nonzero(differ[np.ix_(top, left)])
  ids = four[:, top[rows], left[columns]]
  y, x = down[rows], across[columns]
  weights = (1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x
  best = np.zeros(len(rows))
  for one in ids:
    share = sum(
      w * (one == other) for w, other in zip(weights, ids, strict=True)
    )
    wins = share > best + 1e-9
    best[wins] = share[wins]
    found[rows[wins], columns[wins]] = one[wins]
  return found


def _line_before(old, new):
  """The old line before each new one, and how far that is from it."""
  at = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
  first = np.minimum(at.astype(int), max(old - 2, 0))
  return first, at - first


def upsample_values(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Enlarges float32 [h, w] in [0, 1] bilinearly to the photo's size [H, W]."""
  large = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
  return large.clip(0, 1)  # rounding may exceed it
