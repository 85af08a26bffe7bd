"""Location-aware palette: assigns a code to each entity (sec. 3.4).

Ids carry no meaning, so a rule has to choose the codes. The palette is a grid
of codes laid over the picture: an entity gets the code of the cell that holds
its centroid, so the network can learn codes from positions. Numpy, on the host.
"""

import numpy as np

from bitseg_jax import IGNORE_ID, relabel

OVERFLOWS = ('neighbour', 'largest')


def _similar(num_codes, seed):
  """2D Gray code: neighbours differ in one bit."""
  size = round(num_codes**0.5)
  gray = np.arange(size) ^ (np.arange(size) >> 1)
  return gray[:, None] * size + gray


def _different(num_codes, seed):
  """Along a snake, the free code that differs from the last in most bits."""
  free = np.arange(num_codes) > 0
  sequence = np.zeros(num_codes, np.int32)
  for i in range(1, num_codes):
    distance = np.bitwise_count(sequence[i - 1] ^ np.arange(num_codes))
    sequence[i] = np.argmax(distance * free)
    free[sequence[i]] = False
  grid = sequence.reshape(-1, round(num_codes**0.5))
  grid[1::2] = grid[1::2, ::-1]
  return grid


# A new order is one row: (number of codes, seed) -> codes, each once.
ORDERS = {
  'similar': _similar,
  'different': _different,
  'random': lambda count, seed: np.random.default_rng(seed).permutation(count),
  'range': lambda count, seed: np.arange(count),  # row-major
}


def make_palette(num_codes: int, order: str, seed: int = 0) -> np.ndarray:
  """Lays the codes out on a square grid.

  Args:
    num_codes: a square number; for 'similar', a Gray code, a power of four.
    order: one of ORDERS.
    seed: seed of the 'random' order.

  Returns:
    int32 [S, S] with S = sqrt(num_codes), each code once.

  Raises:
    ValueError: if the order is unknown or num_codes does not fit it.
  """
  if order not in ORDERS:
    raise ValueError(
      f'unknown palette order {order!r}; choose one of {", ".join(ORDERS)}'
    )
  size = round(num_codes**0.5)
  if size * size != num_codes or (order == 'similar' and size & (size - 1)):
    raise ValueError(
      f'num_codes is {num_codes}, which fills no square palette of order '
      f'{order!r}; use a power of four such as 16 or 64, or palette order none'
    )
  return ORDERS[order](num_codes, seed).reshape(size, size).astype(np.int32)


def compact_ids(id_map: np.ndarray) -> tuple[np.ndarray, int]:
  """Renumbers the entities as 0, 1, ... in ascending order of id.

  Returns:
    (labels, count): int32 [H, W] in [0, count), -1 where the id is negative,
    and the number of entities.
  """
  ids = np.asarray(id_map)
  if ids.dtype.kind == 'u':  # as labels in PNGs are read; it lacks -1
    ids = ids.astype(np.int64)
  ignored = np.maximum(ids, IGNORE_ID)
  ranks, present = relabel.compact(ignored)
  negative = int(len(present) > 0 and present[0] == IGNORE_ID)
  return ranks - np.int32(negative), len(present) - negative


def assign_codes(
  id_map: np.ndarray, palette: np.ndarray, overflow: str = 'neighbour'
) -> np.ndarray:
  """Gives each entity the code of the palette cell that holds its centroid.

  Entities are placed in ascending order of id. If a cell is taken, the entity
  gets the free cell nearest to its centroid.

  Args:
    id_map: int [H, W], negative where ignored. The grid covers the padded
      picture, a square of side max(H, W).
    palette: int [S, S], each code once.
    overflow: what the smallest entities merge into where entities outnumber
      codes: 'neighbour', the one with the longest common border, or 'largest',
      the largest entity, as in the official code.

  Returns:
    Codes, int32 [H, W], -1 where ignored.

  Raises:
    ValueError: if overflow is unknown.
  """
  labels, count = merge_smallest(id_map, palette.size, overflow)
  if count == 0:
    return labels
  codes = _nearest_free_cells(_centroids(labels, count), palette)
  return np.append(codes, np.int32(IGNORE_ID))[labels]  # the last for -1


def assign_random_codes(
  id_map: np.ndarray,
  num_codes: int,
  rng: np.random.Generator,
  overflow: str = 'neighbour',
) -> np.ndarray:
  """Gives each entity a random distinct code: order 'none' of Table 3."""
  labels, count = merge_smallest(id_map, num_codes, overflow)
  codes = rng.permutation(num_codes)[:count].astype(np.int32)
  return np.append(codes, np.int32(IGNORE_ID))[labels]


def merge_smallest(
  id_map: np.ndarray, num_codes: int, overflow: str = 'neighbour'
) -> tuple[np.ndarray, int]:
  """Merges the smallest entities until the palette has a code for each.

  Arguments are as of `assign_codes`; num_codes is the most entities to keep.

  Returns:
    As from `compact_ids`, with a count of at most num_codes.

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
  """Returns int [count]: the entity that each one became part of."""
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
    if border[small, near] == 0:  # only ignored pixels around it
      near = int(np.argmax(np.where(np.isinf(area), -1, area)))
    parent[parent == small] = near
    area[near] += area[small]
    area[small] = np.inf
    border[near] += border[small]
    border[:, near] += border[:, small]
    border[small] = border[:, small] = border[near, near] = 0
  return parent


def _centroids(labels, count):
  """Returns the centroid (row, column) of each entity in [0, 1): [N, 2]."""
  pixels = np.nonzero(labels >= 0)  # rows and columns
  sums = [np.bincount(labels[pixels], at + 0.5, count) for at in pixels]
  area = np.bincount(labels[pixels], minlength=count)
  return np.stack(sums, axis=-1) / area[:, None] / max(labels.shape)


def _nearest_free_cells(centroids, palette):
  """Returns the codes of entities at these centroids, each code given once."""
  size = len(palette)
  offsets = (np.arange(size) + 0.5) / size - centroids[..., None]
  squares = offsets**2  # [N, 2, S]
  distance = squares[:, 0, :, None] + squares[:, 1, None, :]
  distance = distance.reshape(-1, size * size)
  cells = np.minimum((centroids * size).astype(int), size - 1) @ (size, 1)
  cells = cells.tolist()
  taken = set()
  for i, cell in enumerate(cells):
    if cell in taken:
      cells[i] = cell = int(distance[i].argmin())
    taken.add(cell)
    distance[:, cell] = np.inf
  return palette.ravel()[cells]
