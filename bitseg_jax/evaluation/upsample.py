"""Enlarges a segmentation from the model's size to the photo's, on the host.

Ids cannot be interpolated, and nearest-neighbour copies have jagged borders. So
each pixel's membership in every segment is interpolated, and the segment with
the largest membership wins.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

_BAND_PIXELS = 1 << 22  # pixels that are enlarged at once


def memberships(
  id_map: np.ndarray, codes: np.ndarray, probabilities: Iterable[np.ndarray]
) -> np.ndarray:
  """Estimates from samples how likely each pixel lies in each segment.

  In sample n, pixel i has code c with probability p_n(i = c) (Eq. 3), and some
  share of the pixels with that code lies in segment k. Their product is summed
  over codes and averaged over samples. Several samples differ in more than the
  course of borders, so that their mean alone would wash out small segments;
  then the decision at the model's size counts as much as all of them.

  Args:
    id_map: int [h, w], ids 0, ..., K - 1: one of the samples or a consensus.
    codes: int [N, h, w], decoded samples.
    probabilities: N arrays, float [h, w, C], of the codes. A sample with codes
      from C on, which the RGB codec can make, counts as certain.

  Returns:
    float32 [h, w, K] in [0, 1], largest at the id in id_map.
  """
  count = int(id_map.max()) + 1
  total = np.zeros((*id_map.shape, count), np.float32)
  for sample, p in zip(codes, probabilities, strict=True):
    num_codes = int(sample.max()) + 1
    joint = sample.astype(np.int64) * count + id_map
    shared = np.bincount(joint.ravel(), minlength=num_codes * count)
    shared = shared.reshape(num_codes, count).astype(np.float32)
    shared /= np.maximum(shared.sum(axis=1, keepdims=True), 1)
    if num_codes > p.shape[-1]:
      total += shared[sample]
    else:
      total += p[..., :num_codes] @ shared
  total /= len(codes)
  if len(codes) > 1:
    total = (total + np.eye(count, dtype=np.float32)[id_map]) / 2
  # The id in id_map must win, if only just.
  top = total.max(axis=-1, keepdims=True) + 1e-3
  np.put_along_axis(total, id_map[..., None], top, axis=-1)
  return total / top.clip(1)


def upsample_ids(membership: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Enlarges a segmentation: interpolates memberships and takes the largest.

  Args:
    membership: float32 [h, w, K] in [0, 1].
    size: size (H, W) of the result, in pixels.

  Returns:
    int32 [H, W], index in [0, K) of the winner; the first of equals.
  """
  # In some pixel around a point, its winner has at least 1 / K of the smallest
  # total membership of any pixel.
  least = membership.sum(axis=-1).min() / membership.shape[-1]
  planes = np.moveaxis(membership, -1, 0)
  return _largest(planes.__getitem__, len(planes), least, size)


def smooth_ids(id_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Enlarges an id map with straight borders where pixels would make stairs.

  Args:
    id_map: int [h, w], ids 0, ..., K - 1.
    size: size (H, W) of the result, in pixels.

  Returns:
    int32 [H, W], ids in [0, K). At the size of id_map it is id_map.
  """
  count = int(id_map.max()) + 1
  plane = lambda k: (id_map == k).astype(np.float32)
  return _largest(plane, count, 1 / count, size)


def _largest(plane_of, count, least, size):
  """Interpolates planes bilinearly and tells which is largest where.

  It goes band by band and visits each plane only where it can win, which is
  near pixels of at least `least`. So it needs memory for a few planes of one
  band, however many there are.
  """
  height, width = size
  best_ids = np.zeros(size, np.int32)
  windows = [_window(plane_of(k) >= least, size) for k in range(count)]
  step = max(1, _BAND_PIXELS // width)
  for start in range(0, height, step):
    stop = min(start + step, height)
    best = np.full((stop - start, width), -1, np.float32)
    for k, (top, left, bottom, right) in enumerate(windows):
      top, bottom = max(top, start), min(bottom, stop)
      if top >= bottom or left >= right:
        continue
      patch = _resize_part(plane_of(k), size, (top, left, bottom, right))
      there = slice(top - start, bottom - start), slice(left, right)
      wins = patch > best[there]
      best[there][wins] = patch[wins]
      best_ids[start:stop][there][wins] = k
  return best_ids


def upsample_values(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Enlarges float32 [h, w] in [0, 1] bilinearly to the photo's size [H, W]."""
  whole = 0, 0, *size
  return np.clip(_resize_part(values, size, whole), 0, 1)


def _window(inside, size):
  """Returns (top, left, bottom, right), at the new size, around some pixels."""
  window = []
  for axis in (1, 0):
    lines = np.flatnonzero(inside.any(axis=axis))
    scale = size[1 - axis] / inside.shape[1 - axis]
    if len(lines):
      reach = max(scale, 1)  # reach of the bilinear filter, at the new size
      first = int(np.floor(lines[0] * scale - reach))
      last = int(np.ceil((lines[-1] + 1) * scale + reach))
      window.append((max(first, 0), min(last, size[1 - axis])))
    else:
      window.append((0, 0))
  (top, bottom), (left, right) = window
  return top, left, bottom, right


def _resize_part(plane, size, part):
  """Computes one part, float32, of a plane resized to `size`."""
  top, left, bottom, right = part
  rows, columns = plane.shape[0] / size[0], plane.shape[1] / size[1]
  # Pillow can interpolate a single channel of float32.
  image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
  resized = image.resize(
    (right - left, bottom - top),
    Image.Resampling.BILINEAR,
    (left * columns, top * rows, right * columns, bottom * rows),
  )
  return np.asarray(resized)
