"""Reads COCO segmentations (polygons, run lengths) as pixels, and writes them.

Of run lengths that do not add up, pycocotools returns uninitialised memory.
"""

import operator
import re
from typing import Any

import numpy as np
from pycocotools import mask

from bitseg_jax.data.outside import shown

# A character from P on says that its number continues.
_PACKED = re.compile('([P-o]*[0-O])*')
_OUTSIDE = 2.0  # pixels by which a polygon may leave its image; it is clipped


def decode(segmentation: Any, height: int, width: int) -> np.ndarray:
  """Reads the pixels of a COCO segmentation: indices x * height + y, int64 [N].

  It is polygons [[x0, y0, x1, y1, ...], ...], which are united, or {'size':
  [height, width], 'counts': run lengths, packed or numbers}; else ValueError.
  """
  read = _run_lengths if isinstance(segmentation, dict) else _polygons
  return np.flatnonzero(mask.decode(read(segmentation, height, width)).T)


def _run_lengths(segmentation, height, width):
  size, counts = segmentation.get('size'), segmentation.get('counts')
  if size not in ([height, width], (height, width)):
    raise ValueError(
      f'run lengths for {shown(size)} (height, width), but the image is '
      f'{[height, width]}'
    )
  try:
    if not isinstance(counts, str):
      plain = {'size': size, 'counts': list(map(operator.index, counts))}
      counts = mask.frPyObjects(plain, height, width)['counts'].decode()
    fit = _PACKED.fullmatch(counts) and _are_within(counts, height * width)
    fit = fit and not _are_within(counts, height * width - 1)
  except (TypeError, ValueError, OverflowError):
    fit = False
  if not fit:
    raise ValueError(
      f'run lengths that are wrong: they do not add up to {height} x {width}'
    )
  return {'size': size, 'counts': counts}


def _are_within(counts, total):
  try:
    mask.decode({'size': [total, 1], 'counts': counts})
  except ValueError:
    return False
  return True


def _polygons(segmentation, height, width):
  if not isinstance(segmentation, list) or not segmentation:
    raise ValueError("has no 'segmentation' of polygons or run lengths")
  if not isinstance(segmentation[0], list):  # a single one, as some write it
    segmentation = [segmentation]
  polygons = []
  for polygon in segmentation:
    try:
      points = np.array(polygon, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
      points = np.empty((0, 2))
    if len(points) < 3 or not np.isfinite(points).all():
      raise ValueError('a polygon is no list x0, y0, x1, y1, ... of 3 points')
    low, high = points.min(0), points.max(0)
    if (low < -_OUTSIDE).any() or (high - (width, height) > _OUTSIDE).any():
      raise ValueError(
        f'a polygon from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, '
        f'{high[1]:g}) lies outside of the image, {width}x{height}'
      )
    polygons.append(points.ravel())
  return mask.merge(mask.frPyObjects(polygons, height, width))


def encode(id_map: np.ndarray) -> list[dict[str, Any]]:
  """Writes segments 0, ... of [H, W] as {'size': [H, W], 'counts': str}."""
  by_column = np.asfortranarray(id_map)
  encoded = [mask.encode(by_column == k) for k in range(int(id_map.max()) + 1)]
  return [{**rle, 'counts': rle['counts'].decode()} for rle in encoded]
