"""Reads COCO segmentations (polygons, run lengths) as pixels, and writes them.

Run lengths are checked here: pycocotools returns uninitialised memory where
they do not add up.
"""

from typing import Any

import numpy as np
from pycocotools import mask

from bitseg_jax.data.outside import shown

_OUTSIDE = 2.0  # pixels by which a polygon may leave its image; it is clipped


def decode(segmentation: Any, height: int, width: int) -> np.ndarray:
  """Reads the pixels of a COCO segmentation.

  Args:
    segmentation: polygons [[x0, y0, x1, y1, ...], ...], which are united, or
      {'size': [height, width], 'counts': run lengths as numbers or in the
      characters of pycocotools}.
    height: height of the image in pixels.
    width: width of the image in pixels.

  Returns:
    Indices x * height + y without repeats, int64 [N].

  Raises:
    ValueError: if the segmentation is none of these or does not fit the image.
  """
  if isinstance(segmentation, dict):
    counts = _read_counts(segmentation, height, width)
    return np.flatnonzero(np.repeat(np.arange(len(counts)) % 2, counts))
  if segmentation is None:
    raise ValueError("has no 'segmentation'")
  if not isinstance(segmentation, list) or not segmentation:
    raise ValueError('the segmentation is neither polygons nor run lengths')
  polygons = [_read_polygon(one, height, width) for one in segmentation]
  united = mask.merge(mask.frPyObjects(polygons, height, width))
  return np.flatnonzero(mask.decode(united).T)


def encode(id_map: np.ndarray) -> list[dict[str, Any]]:
  """Writes each segment as COCO run lengths, as pycocotools reads them.

  Args:
    id_map: integers [H, W] with the ids 0, ..., K - 1.

  Returns:
    K dicts {'size': [H, W], 'counts': str}.
  """
  by_column = np.asfortranarray(id_map)
  encoded = [mask.encode(by_column == k) for k in range(int(id_map.max()) + 1)]
  return [{**rle, 'counts': rle['counts'].decode()} for rle in encoded]


def _read_counts(rle, height, width):
  """Run lengths down the columns, int [N], the first outside the segment."""
  if 'counts' not in rle or 'size' not in rle:
    raise ValueError("run lengths without 'counts' or 'size'")
  counts = rle['counts']
  if isinstance(counts, str | bytes):
    counts = _unpack(counts)
  counts = np.asarray(counts)
  if counts.ndim != 1 or (counts.dtype.kind not in 'iu' and len(counts)):
    raise ValueError('the run lengths are not a list of whole numbers')
  if rle['size'] not in ([height, width], (height, width)):
    raise ValueError(
      f'run lengths for {shown(rle["size"])} (height, width), but the image is '
      f'{[height, width]}'
    )
  total, low = sum(counts.tolist()), counts.min(initial=0)  # cannot overflow
  if low < 0 or total != height * width:
    raise ValueError(
      f'run lengths that are wrong: they add up to {total}, lowest {low}, but '
      f'{height} x {width} is {height * width}'
    )
  return counts.astype(np.int64)


def _unpack(packed):
  """Unpacks counts: 5 bits per character, differences to the last but one."""
  data = packed.encode() if isinstance(packed, str) else packed
  chars = np.frombuffer(data, np.uint8).astype(np.int64) - 48
  if not len(chars):
    return chars
  last = (chars & 32) == 0  # bit 5 is set where the number continues
  first = np.flatnonzero(np.append(True, last[:-1]))
  digits = np.diff(np.append(first, len(chars)))
  if chars.min() < 0 or chars.max() > 63 or not last[-1] or digits.max() > 12:
    raise ValueError('run lengths of characters that pycocotools never writes')
  shift = 5 * (np.arange(len(chars)) - np.repeat(first, digits))
  counts = np.add.reduceat((chars & 31) << shift, first)
  counts -= ((chars[last] & 16) > 0) * (np.int64(1) << 5 * digits)
  counts[1::2] = np.cumsum(counts[1::2])
  counts[2::2] = np.cumsum(counts[2::2])
  return counts


def _read_polygon(polygon, height, width):
  """Checks a polygon, since pycocotools takes memory by its length."""
  try:
    points = np.asarray(polygon)
    if points.dtype.kind not in 'iuf':  # text of digits would do otherwise
      raise ValueError
    points = points.astype(np.float64).reshape(-1, 2)
  except (ValueError, TypeError):
    points = np.empty((0, 2))
  if len(points) < 3 or not np.isfinite(points).all():
    raise ValueError('a polygon is no list x0, y0, x1, y1, ... of 3 points')
  low, high = points.min(0), points.max(0)
  if (
    low.min() < -_OUTSIDE
    or (high > [width + _OUTSIDE, height + _OUTSIDE]).any()
  ):
    raise ValueError(
      f'a polygon from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}) '
      f'lies outside of the image, {width}x{height}'
    )
  return points.ravel().tolist()
