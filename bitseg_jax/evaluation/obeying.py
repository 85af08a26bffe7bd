"""Makes a segmentation agree with what is known, on the host."""

import functools

import cv2
import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import dijkstra
from skimage import measure
from skimage.graph import pixel_graph

from bitseg_jax import IGNORE_ID, relabel
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import upsample

# Side of the copy of the photo on which geodesic distances are measured.
_LONGEST = 256
# What a pixel without any edge costs; an edge of the mean slope costs 1 more.
# Were it 1, a mark on a small thing would take half of what surrounds it.
_STEP = 0.03
# A mark leaves a part of its segment that looks otherwise: two groups of pixels
# whose distances in Lab to the mark differ by _GAP and explain _EXPLAINED of
# their variance. In segments below _LEAST_AREA of the photo there is little to
# lose. Other values within a factor of 1.5 scored alike.
_EXPLAINED, _GAP, _LEAST_AREA = 0.6, 10.0, 0.05


def obey(
  id_map: np.ndarray,
  known: np.ndarray,
  photo: np.ndarray,
  pieces: np.ndarray | None = None,
) -> np.ndarray:
  """Changes a segmentation as little as makes it agree with what is known.

  Segments with pixels of one known entity become that entity's, but for pieces
  that look quite unlike its marks: a click on a saucer is not to take the
  table. A segment with pixels of several is divided: each pixel goes to the one
  to which the way is shortest. A way across an edge of the photo is long.

  Args:
    id_map: int [H, W], ids of 0 or more.
    known: int [H, W], ids of 0 or more; -1 where nothing is said.
    photo: uint8 [H, W, 3].
    pieces: int [H, W], ids 0, ..., R - 1 of small regions of one colour, each
      within a segment; None: marks take their whole segments.

  Returns:
    int32 [H, W], ids 0, 1, ... without gaps. Known pixels are as said.

  Source: Bai and Sapiro, "A geodesic framework for fast interactive image and
    video segmentation and matting", 2007; Otsu, "A threshold selection method
    from gray-level histograms", 1979.
  """
  said = known >= 0
  result = id_map.astype(np.int64) + int(known.max()) + 1
  pairs = np.stack([id_map[said], known[said]])
  _, first = np.unique(pairs, axis=1, return_index=True)
  table = pairs[:, np.sort(first)]  # the order of pixels, whatever the numbers
  # Made once they are needed.
  colours = functools.cache(lambda: _mean_colours(photo, pieces))
  graph = functools.cache(lambda: _geodesic_graph(photo))
  for segment in np.unique(table[0]):
    inside, entities = id_map == segment, table[1][table[0] == segment]
    if len(entities) > 1:
      result[inside] = _nearest(known, inside, *graph())[inside]
      continue
    if pieces is not None and inside.mean() >= _LEAST_AREA:
      inside = _like_the_marks(inside, said, pieces, *colours())
    result[inside] = entities[0]
  result[said] = known[said]
  return relabel.compact(result)[0]


def shrink(known: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Reduces known ids [H, W] to a size; a cell has the last one that is in it.

  Where nothing is said they are -1, before and after.
  """
  small = np.full(size, IGNORE_ID, np.int32)
  y, x = np.nonzero(known >= 0)
  rows, columns = y * size[0] // known.shape[0], x * size[1] // known.shape[1]
  small[rows, columns] = known[y, x]
  return small


def _mean_colours(photo, pieces):
  lab = cv2.cvtColor(photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
  pieces = pieces.ravel()
  sums = [np.bincount(pieces, plane.ravel()) for plane in cv2.split(lab)]
  areas = np.bincount(pieces)
  return np.stack(sums, axis=1) / np.maximum(areas, 1)[:, None], areas


def _like_the_marks(inside, said, pieces, lab, areas):
  """The part of a segment [H, W] that a mark in it takes: all, or some."""
  members, marked = np.unique(pieces[inside]), np.unique(pieces[inside & said])
  away = np.linalg.norm(lab[members][:, None] - lab[marked], axis=-1)
  away = away.min(axis=1)
  order = np.argsort(away, kind='stable')
  members, away = members[order], away[order]
  area = areas[members] / areas[members].sum()
  near = np.cumsum(area)[:-1]  # share of the first 1, 2, ... pieces
  total, part = area @ away, np.cumsum(area * away)[:-1]
  variance = area @ (away - total) ** 2
  apart = (total - part) / np.maximum(1 - near, 1e-9) - part / near
  explained = near * (1 - near) * apart**2
  if not len(explained):
    return inside
  best = int(explained.argmax())
  if explained[best] < _EXPLAINED * variance or apart[best] < _GAP:
    return inside
  like = np.isin(pieces, members[: best + 1])
  parts = measure.label(like, connectivity=1)
  return np.isin(parts, np.unique(parts[inside & said]))


def _geodesic_graph(photo):
  """Costs [P, P] of steps between pixels of a small copy, and its size."""
  size = photo.shape[:2]
  small = transforms.fit_longest_side(*size, min(_LONGEST, max(size)))
  copy = transforms.resize_image(photo, small).astype(np.float32)
  slope = np.zeros(small)
  for channel in np.moveaxis(copy, -1, 0):
    slope += ndimage.gaussian_gradient_magnitude(channel, 1.0) ** 2
  slope = np.sqrt(slope)
  cost = _STEP + slope / max(slope.mean(), 1e-6)
  step = lambda here, there, distance: distance * (here + there) / 2
  graph, _ = pixel_graph(
    cost, mask=np.ones(small, bool), edge_function=step, connectivity=2
  )
  return graph, small


def _nearest(known, inside, graph, small):
  """The known entity [H, W] that is nearest among those in a segment."""
  entity = shrink(np.where(inside, known, IGNORE_ID), small)
  marked = np.flatnonzero(entity >= 0)
  how = {'directed': False, 'return_predecessors': True, 'min_only': True}
  _, _, sources = dijkstra(graph, indices=marked, **how)
  nearest = entity.ravel()[sources].reshape(small)
  return upsample.smooth_ids(nearest, known.shape)
