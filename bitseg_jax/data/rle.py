"""Reads COCO segmentations (polygons, run lengths) as pixels, and writes them.

What pycocotools would take without a look is checked: of run lengths that do
not add up it returns uninitialised memory.
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
    if not {'size', 'counts'} <= segmentation.keys():
      raise ValueError("run lengths without 'counts' or 'size'")
    if segmentation['size'] not in ([height, width], (height, width)):
      raise ValueError(
        f'run lengths for {shown(segmentation["size"])} (height, width), but '
        f'the image is {[height, width]}'
      )
    counts = segmentation['counts']
    packed = isinstance(counts, str | bytes)
    counts = np.asarray(_unpack(counts) if packed else counts)
    if counts.ndim != 1 or (counts.dtype.kind not in 'iu' and len(counts)):
      raise ValueError('the run lengths are not a list of whole numbers')
    total, low = sum(counts.tolist()), counts.min(initial=0)
    if low < 0 or total != height * width:
      raise ValueError(
        f'run lengths that are wrong: they add up to {total}, lowest {low}, '
        f'but {height} x {width} is {height * width}'
      )
    inside = np.arange(len(counts)) % 2
    return np.flatnonzero(np.repeat(inside, counts.astype(np.int64)))
  if segmentation is None:
    raise ValueError("has no 'segmentation'")
  if not isinstance(segmentation, list) or not segmentation:
    raise ValueError('the segmentation is neither polygons nor run lengths')
  if not isinstance(segmentation[0], list):  # a single one, as some write it
    segmentation = [segmentation]
  for polygon in segmentation:
    try:
      points = np.asarray(polygon)
      if points.dtype.kind not in 'iuf' or points.size < 6:  # text would do
        raise ValueError
      points = points.astype(np.float64).reshape(-1, 2)
    except ValueError:
      points = np.full((3, 2), np.nan)
    if not np.isfinite(points).all():
      raise ValueError('a polygon is no list x0, y0, x1, y1, ... of 3 points')
    low, high = points.min(0), points.max(0)
    if (low < -_OUTSIDE).any() or (high - (width, height) > _OUTSIDE).any():
      raise ValueError(
        f'a polygon from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, '
        f'{high[1]:g}) lies outside of the image, {width}x{height}'
      )
  united = mask.merge(mask.frPyObjects(segmentation, height, width))
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
