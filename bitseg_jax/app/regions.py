"""Regions of one colour in a photo, and pieces of segments.

A model sees photos at its own small size; where an entity ends exactly, the
photo itself tells best. Small regions are much smaller than most entities, so
that nearly every one lies in a single entity, and answers keep to their
borders. Large ones are as large as entities and vote on the answer.
"""

import cv2
import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage import measure
from skimage.segmentation import felzenszwalb, watershed

from bitseg_jax import relabel
from bitseg_jax.data import transforms

# All for photos whose longest side is _SIDE pixels.
_SIDE = 256
# Small regions grow from one seed in each square of _CELL pixels, and those
# join whose mean colours are nearer than _NEAR, which is less than one sees.
# Felzenszwalb's score alike (ARI .518 and .520 on a quarter of BSDS500 val),
# but change with every bit of noise.
_CELL, _BLUR, _NEAR = 10, 1.0, 0.01
# From a quarter of the scale that is best alone to four times as much.
_LARGE_SCALES = 140.0, 280.0, 560.0, 1120.0, 2240.0
_LARGE_BLUR, _LARGE_MIN_AREA = 0.8, 300
_LAB = 1.2 / 100  # so that steps in Lab are as large as in RGB


def split(photo: np.ndarray) -> np.ndarray:
  """Cuts a photo into regions.

  Args:
    photo: uint8 [H, W, 3].

  Returns:
    int32 [H, W], ids 0, ..., R - 1 without gaps. R is some hundred; what has no
    edges at all is one region.

  Source: Machairas et al., "Waterpixels", 2015.
  """
  lab = np.moveaxis(_to_lab(photo), -1, 0)
  slope = sum(
    ndimage.gaussian_gradient_magnitude(channel, _BLUR) ** 2 for channel in lab
  )
  cell = max(3, round(_CELL * max(slope.shape) / _SIDE))
  rows, columns = (np.arange(side) // cell for side in slope.shape)
  cells = rows[:, None] * (columns[-1] + 1) + columns
  seeds = np.zeros(slope.shape, np.int32)
  lowest = ndimage.minimum_position(slope, cells, np.arange(cells.max() + 1))
  seeds[tuple(np.transpose(lowest))] = np.arange(1, len(lowest) + 1)
  found = relabel.compact(watershed(np.sqrt(slope), seeds))[0]
  sums = [np.bincount(found.ravel(), channel.ravel()) for channel in lab]
  mean = np.stack(sums, axis=1) / np.bincount(found.ravel())[:, None]
  beside = found[:, 1:].ravel(), found[:, :-1].ravel()
  below = found[1:].ravel(), found[:-1].ravel()
  first, second = np.concatenate([beside, below], axis=1)
  near = np.linalg.norm(mean[first] - mean[second], axis=1) < _NEAR
  alike = coo_array((near, (first, second)), (len(mean), len(mean)))
  alike.eliminate_zeros()
  return connected_components(alike, directed=False)[1].astype(np.int32)[found]


def large(photo: np.ndarray) -> list[np.ndarray]:
  """Cuts a photo into large regions, from fine to coarse.

  Args:
    photo: uint8 [H, W, 3].

  Returns:
    Five cuts, int32 [H, W] each, ids 0, 1, ... without gaps. Their borders are
    true to two pixels.

  Source: Felzenszwalb and Huttenlocher, "Efficient graph-based image
    segmentation", 2004.
  """
  size = photo.shape[:2]
  # At half the size they cost a quarter and score as well.
  half = transforms.resize_image(photo, [-(-length // 2) for length in size])
  lab, larger = _to_lab(half), max(half.shape) / _SIDE
  least = max(8, round(_LARGE_MIN_AREA * larger**2))
  how = {'sigma': _LARGE_BLUR * larger, 'min_size': least}
  scales = [scale * larger**0.5 for scale in _LARGE_SCALES]
  cuts = [felzenszwalb(lab, scale=scale, **how) for scale in scales]
  return [transforms.resize_ids(relabel.compact(c)[0], size) for c in cuts]


def _to_lab(photo):
  low, high = np.percentile(photo, (1, 99))  # dark photos have edges, too
  bright = ((photo - low) / max(high - low, 1)).clip(0, 1).astype(np.float32)
  return cv2.cvtColor(bright, cv2.COLOR_RGB2LAB) * _LAB


def join_specks(
  id_map: np.ndarray, min_area: float, known: np.ndarray | None = None
) -> np.ndarray:
  """Joins specks to the segments beside them, each pixel to the nearest.

  A speck is a connected piece of a segment (by sides, not corners) with less
  than the least area. The largest piece of the photo is none.

  Args:
    id_map: int [H, W], ids 0, ..., K - 1.
    min_area: least area of a piece, as a share of the photo.
    known: int [H, W], where it is not -1 pieces stay; None: nowhere.

  Returns:
    int32 [H, W], ids without gaps.
  """
  pieces = measure.label(id_map, background=-1, connectivity=1)
  areas = np.bincount(pieces.ravel())
  stays = areas >= min(min_area * id_map.size, areas.max())
  if known is not None:
    stays[pieces[known >= 0]] = True
  seeds = np.where(stays[pieces], id_map + 1, 0)
  flat = np.zeros(id_map.shape, np.uint8)
  return relabel.compact(watershed(flat, seeds))[0]


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
  name_of = np.arange(pieces.max() + 1)
  for entity in np.unique(known[known >= 0]) if known is not None else ():
    marked = np.unique(pieces[known == entity])
    name_of[marked] = marked[0]
  return relabel.compact(name_of[pieces])[0]
