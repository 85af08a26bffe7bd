"""Location-aware palette: which code an entity gets (sec. 3.4). Host, numpy.

Ids carry no meaning, so something has to choose the codes. The palette is a
grid of codes laid over the picture: an entity gets the code of the cell its
centroid falls in, and the network can learn code from place.
"""

import numpy as np

from bitseg_jax import IGNORE_ID, relabel

ORDERS = ('similar', 'different', 'random', 'range')
OVERFLOWS = ('neighbour', 'largest')


def make_palette(num_codes: int, order: str, seed: int = 0) -> np.ndarray:
  """Lays the codes out on a square grid.

  Args:
    num_codes: number of codes; a square, and for 'similar' and 'different' a
      power of four (their order is one of bits).
    order: 'similar' (2D Gray code: neighbours differ in one bit),
      'different' (greedy maximal bit difference along a snake), 'random'
      (permutation drawn from seed) or 'range' (row-major).
    seed: of the 'random' order.

  Returns:
    int32 [S, S], S = sqrt(num_codes), every code once.

  Raises:
    ValueError: if the order is unknown or the codes do not fill a square.
  """
  if order not in ORDERS:
    raise ValueError(
      f'unknown palette order {order!r}; choose one of {", ".join(ORDERS)}'
    )
  size = round(num_codes**0.5)
  if size * size != num_codes:
    raise ValueError(
      f'num_codes is {num_codes}, which fills no square palette; '
      'use a square such as 4, 16, 64, 256 or 1024, or palette order none'
    )
  if order in ('similar', 'different') and num_codes & (num_codes - 1):
    raise ValueError(
      f'num_codes is {num_codes}; palette order {order!r} needs a power of '
      'four such as 4, 16, 64, 256 or 1024'
    )
  codes = np.arange(num_codes, dtype=np.int32)
  if order == 'random':
    codes = np.random.default_rng(seed).permutation(codes)
  elif order == 'similar':
    gray = np.arange(size) ^ (np.arange(size) >> 1)
    codes = gray[:, None] * size + gray[None, :]
  elif order == 'different':
    codes = _alternating_codes(num_codes).reshape(size, size)
    codes[1::2] = codes[1::2, ::-1]
  return codes.reshape(size, size).astype(np.int32)


def _alternating_codes(num_codes):
  """Sequence in which every code differs from the last in most bits."""
  free = np.ones(num_codes, bool)
  sequence = np.zeros(num_codes, np.int32)
  free[0] = False
  for i in range(1, num_codes):
    distance = np.bitwise_count(sequence[i - 1] ^ np.arange(num_codes))
    sequence[i] = np.argmax(np.where(free, distance.astype(int), -1))
    free[sequence[i]] = False
  return sequence


def compact_ids(id_map: np.ndarray) -> tuple[np.ndarray, int]:
  """Renumbers the ids 0, 1, ... in ascending order.

  Args:
    id_map: int [H, W]; negative ids are ignored pixels.

  Returns:
    (int32 [H, W] in [0, count) and -1 where ignored, count).
  """
  ignored = np.maximum(np.asarray(id_map), IGNORE_ID)
  ranks, present = relabel.compact(ignored)
  negative = int(len(present) > 0 and present[0] == IGNORE_ID)
  return ranks - np.int32(negative), len(present) - negative


def assign_codes(
  id_map: np.ndarray, palette: np.ndarray, overflow: str = 'neighbour'
) -> np.ndarray:
  """Gives every entity the code of the palette cell its centroid is in.

  Entities go in ascending id order; where a cell is taken the entity moves
  to the free cell nearest to its centroid.

  Args:
    id_map: int [H, W], negative = ignored; the grid covers the square of side
      max(H, W), the padded picture.
    palette: int [S, S], every code once.
    overflow: where entities outnumber codes, the smallest join the neighbour
      with the longest common border ('neighbour') or the largest entity
      ('largest', as the official code does).

  Returns:
    int32 [H, W] codes; -1 stays -1.

  Raises:
    ValueError: if overflow is unknown.
  """
  labels, count = fit_to_codes(id_map, palette.size, overflow)
  if count == 0:
    return labels
  codes = np.full(count + 1, IGNORE_ID, np.int32)  # last one: ignored pixels
  codes[:count] = _nearest_free_cells(_centroids(labels, count), palette)
  return codes[labels]


def random_codes(
  id_map: np.ndarray,
  num_codes: int,
  rng: np.random.Generator,
  overflow: str = 'neighbour',
) -> np.ndarray:
  """Gives every entity a random code of its own: no palette (Table 3).

  Args:
    id_map: int [H, W], negative = ignored.
    num_codes: number of codes.
    rng: source of randomness; a new draw at every visit.
    overflow: as for assign_codes.

  Returns:
    int32 [H, W] codes; -1 stays -1.
  """
  labels, count = fit_to_codes(id_map, num_codes, overflow)
  codes = np.full(count + 1, IGNORE_ID, np.int32)
  codes[:count] = rng.permutation(num_codes)[:count]
  return codes[labels]


def fit_to_codes(
  id_map: np.ndarray, num_codes: int, overflow: str = 'neighbour'
) -> tuple[np.ndarray, int]:
  """Compact ids, the smallest entities merged until they fit num_codes.

  Args:
    id_map: int [H, W], negative = ignored.
    num_codes: most entities to keep.
    overflow: 'neighbour' or 'largest', see assign_codes.

  Returns:
    (int32 [H, W] in [0, count) and -1 where ignored, count <= num_codes).

  Raises:
    ValueError: if overflow is unknown.
  """
  if overflow not in OVERFLOWS:
    raise ValueError(
      f'unknown overflow {overflow!r}; choose one of {", ".join(OVERFLOWS)}'
    )
  labels, count = compact_ids(id_map)
  if count <= num_codes:
    return labels, count
  area = np.bincount(labels[labels >= 0], minlength=count)
  if overflow == 'largest':
    by_area = np.argsort(-area, kind='stable')
    parent = np.arange(count)
    parent[by_area[num_codes:]] = by_area[0]
  else:
    parent = _merge_into_neighbours(labels, area, num_codes)
  return compact_ids(np.append(parent, IGNORE_ID)[labels])


def _merge_into_neighbours(labels, area, num_codes):
  """Merges the smallest entity into the neighbour it shares the longest border
  with, until the entities fit the codes: int [count], who each one became."""
  count = len(area)
  border = np.zeros((count, count), np.int32)
  for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
    touching = (a != b) & (a >= 0) & (b >= 0)
    np.add.at(border, (a[touching], b[touching]), 1)
  border += border.T
  parent = np.arange(count)
  area = area.astype(float)
  for _ in range(count - num_codes):
    small = int(np.argmin(area))
    near = int(np.argmax(border[small]))
    if border[small, near] == 0:  # an island in ignored pixels
      near = int(np.argmax(np.where(np.isinf(area), -1, area)))
    parent[parent == small] = near
    area[near] += area[small]
    area[small] = np.inf
    border[near] += border[small]
    border[:, near] += border[:, small]
    border[small] = border[:, small] = border[near, near] = 0
  return parent


def _centroids(labels, count):
  """Mean pixel centres (row, column) of each entity, in [0, 1): [N, 2]."""
  height, width = labels.shape
  bins = count + 1
  shifted = labels + 1  # bin 0 collects the ignored pixels
  # Counting by row and by column: weighted counts take four times as long.
  by_row, by_column = (
    np.bincount((shifted + lines * bins).ravel(), minlength=size * bins)
    .reshape(size, bins)[:, 1:]
    .astype(float)
    for lines, size in (
      (np.arange(height)[:, None], height),
      (np.arange(width), width),
    )
  )
  area = by_row.sum(axis=0)
  sums = (
    (np.arange(height) + 0.5) @ by_row,
    (np.arange(width) + 0.5) @ by_column,
  )
  return np.stack(sums, axis=-1) / area[:, None] / max(height, width)


def _nearest_free_cells(centroids, palette):
  """Codes of the entities at these centroids, each code given once."""
  size = len(palette)
  offsets = (np.arange(size) + 0.5) / size - centroids[..., None]
  squares = offsets**2  # [N, 2, S]
  distance = squares[:, 0, :, None] + squares[:, 1, None, :]
  distance = distance.reshape(len(centroids), size * size)
  cells = np.minimum((centroids * size).astype(int), size - 1) @ (size, 1)
  cells = cells.tolist()
  taken = set()
  for i, cell in enumerate(cells):
    if cell in taken:
      cells[i] = cell = int(distance[i].argmin())
    taken.add(cell)
    distance[:, cell] = np.inf
  return palette.ravel()[cells]
