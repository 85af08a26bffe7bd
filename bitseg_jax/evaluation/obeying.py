"""Makes a segmentation agree with what is known, on the host."""

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import dijkstra
from skimage.graph import pixel_graph

from bitseg_jax import relabel
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import upsample

_LONGEST = (
  256  # side of the copy of the photo on which geodesic distances are measured
)
# What a pixel without any edge costs; an edge of the mean slope costs 1 more.
# Were it 1, a mark on a small thing would take half of what surrounds it.
_STEP = 0.03


def obey(
  id_map: np.ndarray, known: np.ndarray, photo: np.ndarray | None = None
) -> np.ndarray:
  """Changes a segmentation as little as makes it agree with what is known.

  Segments with pixels of one known entity become that entity's. A segment with
  pixels of several is divided: each pixel goes to the one to which the way is
  shortest. A way across an edge of the photo is long.

  Args:
    id_map: int [H, W], ids of 0 or more.
    known: int [H, W], ids of 0 or more; -1 where nothing is said.
    photo: uint8 [H, W, 3]; None: it has no edges.

  Returns:
    int32 [H, W], ids 0, 1, ... without gaps. Known pixels are as said.

  Source: Bai and Sapiro, "A geodesic framework for fast interactive image and
    video segmentation and matting", 2007.
  """
  said = known >= 0
  count = int(known.max()) + 1
  result = id_map.astype(np.int64) + count
  pairs = np.stack([id_map[said], known[said]])
  _, first = np.unique(pairs, axis=1, return_index=True)
  table = pairs[:, np.sort(first)]  # the order of pixels, whatever the numbers
  longest = min(_LONGEST, max(known.shape))
  small = transforms.fit_longest_side(*known.shape, longest)
  graph = None
  for segment in np.unique(table[0]):
    inside, entities = id_map == segment, table[1][table[0] == segment]
    if len(entities) == 1:
      result[inside] = entities[0]
      continue
    if graph is None:
      graph = _geodesic_graph(small, photo)
    result[inside] = _nearest(known, inside, graph, small)[inside]
  result[said] = known[said]
  return relabel.compact(result)[0]


def _geodesic_graph(small, photo):
  """What steps between neighbouring pixels of a small copy cost, [P, P]."""
  slope = np.zeros(small)
  if photo is not None:
    copy = transforms.resize_image(photo, small).astype(np.float32)
    for channel in np.moveaxis(copy, -1, 0):
      slope += ndimage.gaussian_gradient_magnitude(channel, 1.0) ** 2
    slope = np.sqrt(slope)
  cost = _STEP + slope / max(slope.mean(), 1e-6)
  step = lambda here, there, distance: distance * (here + there) / 2
  everywhere = np.ones(small, bool)
  graph, _ = pixel_graph(
    cost, mask=everywhere, edge_function=step, connectivity=2
  )
  return graph


def _nearest(known, inside, graph, small):
  """The known entity [H, W] that is nearest among those in a segment."""
  ys, xs = np.nonzero(inside & (known >= 0))
  rows, columns = (
    along * new // old
    for along, new, old in zip((ys, xs), small, known.shape, strict=True)
  )
  entity = np.full(small, -1, np.int64)
  entity[rows, columns] = known[ys, xs]
  marks = np.flatnonzero(entity.ravel() >= 0)
  _, _, sources = dijkstra(
    graph,
    directed=False,
    indices=marks,
    return_predecessors=True,
    min_only=True,
  )
  names, ids = np.unique(entity.ravel()[sources], return_inverse=True)
  return names[upsample.smooth_ids(ids.reshape(small), known.shape)]
