"""Cuts a photo by its colours: into small regions, and into large ones.

A model sees photos at its own small size; where an entity ends exactly, the
photo itself tells best. Small regions are much smaller than most entities, so
that nearly every one lies in a single entity, and answers keep to their
borders. Large ones are as large as entities and vote on the answer.
"""

import functools

import numpy as np
from skimage.segmentation import felzenszwalb

from bitseg_jax import relabel

# For photos whose longest side is 256 pixels. On every second photo of BSDS500
# val, clothing and nuclei larger and smaller ones (scales of 40 and 160) scored
# alike in ARI; cutting the largest regions once more cost ARI.
_SIDE = 256
_SCALE = 100.0
_MIN_AREA = 50
# Alone, a scale of 560 is best at this size on BSDS500 train, see
# evaluation/baselines.py. These go from a quarter of it to four times as much.
_LARGE_SCALES = 140.0, 280.0, 560.0, 1120.0, 2240.0
_LARGE_MIN_AREA = 300
_LARGE_BLUR = 0.8


def split(photo: np.ndarray) -> np.ndarray:
  """Cuts a photo into regions.

  Args:
    photo: uint8 [H, W, 3].

  Returns:
    int32 [H, W], ids 0, ..., R - 1 without gaps. R is some hundred; what has no
    edges at all is one region.

  Source: Felzenszwalb and Huttenlocher, "Efficient graph-based image
    segmentation", 2004.
  """
  return _felzenszwalb(photo, _SCALE, 0.5, _MIN_AREA)


def large(photo: np.ndarray) -> np.ndarray:
  """Cuts a photo into large regions, from fine to coarse.

  Args:
    photo: uint8 [H, W, 3].

  Returns:
    int32 [5, H, W], ids of each cut 0, 1, ... without gaps.
  """
  blur = _LARGE_BLUR * max(photo.shape[:2]) / _SIDE
  found = [
    _felzenszwalb(photo, scale, blur, _LARGE_MIN_AREA)
    for scale in _LARGE_SCALES
  ]
  return np.stack(found)


def _felzenszwalb(photo, scale, sigma, min_area):
  """Regions of a photo; scale and area are for a side of _SIDE pixels."""
  return _cut(photo.tobytes(), photo.shape, scale, sigma, min_area)


@functools.lru_cache(maxsize=12)  # every click on a photo asks for them again
def _cut(pixels, shape, scale, sigma, min_area):
  photo = np.frombuffer(pixels, np.uint8).reshape(shape)
  larger = max(shape[:2]) / _SIDE
  low, high = np.percentile(photo, (1, 99))  # dark photos have edges, too
  bright = (photo - low) / max(high - low, 1)
  found = felzenszwalb(
    bright.clip(0, 1),
    scale=scale * larger**0.5,
    sigma=sigma,
    min_size=max(8, round(min_area * larger**2)),
  )
  ids = relabel.compact(found)[0]
  ids.setflags(write=False)  # others may be given the same array
  return ids
