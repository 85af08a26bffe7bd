"""Reads COCO segmentations (polygons, run lengths) as pixels, and writes them.

pycocotools only writes them: reading run lengths that do not add up, it returns
uninitialised memory, and the polygons it fills reach half a pixel further.
"""

from typing import Any

import numpy as np
from pycocotools import mask

from bitseg_jax.data.outside import shown

_OUTSIDE = 2.0  # pixels by which a polygon may leave its image; it is clipped


def decode(segmentation: Any, height: int, width: int) -> np.ndarray:
  """Reads the pixels of a COCO segmentation.

  Run lengths go down the columns and start outside the segment. A polygon holds
  the pixels whose centres it encloses (even-odd); several polygons are united.

  Args:
    segmentation: [[x0, y0, x1, y1, ...], ...] or {'size': [height, width],
      'counts': run lengths as numbers or in the characters of pycocotools}.
    height: height of the image in pixels.
    width: width of the image in pixels.

  Returns:
    Indices x * height + y without repeats, int64 [N].

  Raises:
    ValueError: if the segmentation is none of these or does not fit the image.
  """
  if isinstance(segmentation, dict):
    return _spread(*_parse_rle(segmentation, height, width))
  if segmentation is None:
    raise ValueError("has no 'segmentation'")
  if not isinstance(segmentation, list) or not segmentation:
    raise ValueError('the segmentation is neither polygons nor run lengths')
  parts = [_fill_polygon(polygon, height, width) for polygon in segmentation]
  return parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))


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


def _spread(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """Expands runs to indices start, start + 1, ... of each."""
  ends = np.cumsum(lengths)
  total = int(ends[-1]) if len(ends) else 0
  return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def _parse_rle(
  rle: dict[str, Any], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns starts and lengths of the runs inside the segment."""
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
  if counts.max(initial=0) > height * width:  # before a sum overflows
    raise ValueError(
      f'run lengths that are wrong: {counts.max()} pixels of {height} x {width}'
    )
  if np.any(counts < 0) or counts.sum() != height * width:
    raise ValueError(
      f'run lengths that are wrong: they add up to {counts.sum()}, lowest '
      f'{counts.min(initial=0)}, but {height} x {width} is {height * width}'
    )
  ends = np.cumsum(counts)
  return (ends - counts)[1::2].astype(np.int64), counts[1::2]


def _unpack(packed: str | bytes) -> np.ndarray:
  """Unpacks counts: 5 bits per character, differences to the last but one."""
  data = packed.encode() if isinstance(packed, str) else packed
  chars = np.frombuffer(data, np.uint8).astype(np.int64) - 48
  if not len(chars):
    return chars
  last = (chars & 32) == 0  # bit 5 is set where the number continues
  if chars.min() < 0 or chars.max() > 63 or not last[-1]:
    raise ValueError('run lengths of characters that pycocotools never writes')
  first = np.flatnonzero(np.append(True, last[:-1]))
  digits = np.diff(np.append(first, len(chars)))
  if digits.max() > 12:
    raise ValueError('a run length that is far too large')
  shift = 5 * (np.arange(len(chars)) - np.repeat(first, digits))
  counts = np.add.reduceat((chars & 31) << shift, first)
  counts -= ((chars[last] & 16) > 0) * (np.int64(1) << 5 * digits)
  counts[1::2] = np.cumsum(counts[1::2])
  counts[2::2] = np.cumsum(counts[2::2])
  return counts


def _fill_polygon(polygon: Any, height: int, width: int) -> np.ndarray:
  try:
    numbers = np.asarray(polygon)
    if numbers.dtype.kind not in 'iuf':  # text of digits would do otherwise
      raise ValueError
    points = numbers.astype(np.float64).reshape(-1, 2)
  except (ValueError, TypeError):
    points = np.empty((0, 2))
  if len(points) < 3 or not np.isfinite(points).all():
    raise ValueError('a polygon is no list x0, y0, x1, y1, ... of 3 points')
  if (points < -_OUTSIDE).any() or (
    points > [width + _OUTSIDE, height + _OUTSIDE]
  ).any():
    low, high = points.min(0), points.max(0)
    raise ValueError(
      f'a polygon from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}) '
      f'lies outside of the image, {width}x{height}'
    )
  (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
  # The columns [first, last) whose centre line each edge crosses.
  bounds = np.ceil(np.sort([x0, x1], axis=0) - 0.5).clip(0, width).astype(int)
  lengths = bounds[1] - bounds[0]
  edge = np.repeat(np.arange(len(points)), lengths)
  column = _spread(bounds[0], lengths)
  slope = (y1 - y0)[edge] / (x1 - x0)[edge]
  y = y0[edge] + (column + 0.5 - x0[edge]) * slope
  row = np.ceil(y - 0.5).clip(0, height).astype(np.int64)
  # A column is entered as often as it is left, so its sorted borders pair up.
  borders = np.sort(column * height + row)
  return _spread(borders[0::2], borders[1::2] - borders[0::2])
