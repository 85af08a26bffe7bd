"""Known pixels: what a user says of a photo, on its way to the model and back.

`known` is an id map in which -1 is "not said": pixels with the same number are
one entity, with different numbers different ones. The numbers carry no meaning
beyond that.
"""

import jax
import jax.numpy as jnp
import numpy as np

from bitseg_jax import IGNORE_ID, relabel

MOST_MARKS = 10  # in a training sample


def draw_marks(
  key: jax.Array, codes: jax.Array, num_codes: int, rate: float
) -> jax.Array:
  """Draws known pixels as a user may give them, to train a network with.

  A sample that has any gets between 1 and MOST_MARKS marks, few more often than
  many. Each is a point, with the pixels of its entity up to 2 pixels around it;
  one mark in ten is its whole entity. How often an entity is marked lies
  between by its area and as often as others.

  Args:
    key: PRNG key.
    codes: int [B, H, W], -1 where ignored.
    num_codes: number of codes.
    rate: share of the samples that get marks, in [0, 1].

  Returns:
    int32 [B, H, W]: the codes of the known pixels, -1 elsewhere.
  """
  return jax.vmap(_draw_marks, (0, 0, None, None))(
    jax.random.split(key, len(codes)), codes, num_codes, rate
  )


def _draw_marks(key, codes, num_codes, rate):
  keys = jax.random.split(key, 6)
  height, width = codes.shape
  flat = codes.ravel()
  sizes = jnp.bincount(flat + 1, length=num_codes + 1)[1:]
  area = jnp.maximum(sizes, 1)[jnp.maximum(flat, 0)]
  evenly = jax.random.uniform(keys[0])
  logits = jnp.where(flat >= 0, -evenly * jnp.log(area), -jnp.inf)
  # The largest of logits and Gumbel noise are draws without replacement.
  noisy = logits + jax.random.gumbel(keys[1], logits.shape)
  _, points = jax.lax.top_k(noisy, MOST_MARKS)
  apart = jnp.maximum(
    jnp.abs(jnp.arange(height)[:, None] - (points // width)[:, None, None]),
    jnp.abs(jnp.arange(width) - (points % width)[:, None, None]),
  )  # [M, H, W]
  reach = jax.random.randint(keys[2], (), 0, 3)
  whole = jax.random.bernoulli(keys[3], 0.1, (MOST_MARKS, 1, 1))
  marks = (codes == flat[points][:, None, None]) & ((apart <= reach) | whole)
  few = jnp.exp(jax.random.uniform(keys[4]) * jnp.log(MOST_MARKS + 1.0))
  count = few.astype(jnp.int32) * jax.random.bernoulli(keys[5], rate)
  given = jnp.any(
    marks & (jnp.arange(MOST_MARKS) < count)[:, None, None], axis=0
  )
  return jnp.where(given & (codes >= 0), codes, -1)


def widen(known: jax.Array) -> jax.Array:
  """Extends known codes, int [B, H, W], to unknown pixels that touch one code.

  A network is trained with marks of several pixels, and one pixel of 4,096 is
  easily overlooked.
  """
  unknown = jnp.iinfo(known.dtype).max
  window = (1, 3, 3), (1, 1, 1), 'SAME'
  high = jax.lax.reduce_window(
    known, known.dtype.type(-1), jax.lax.max, *window
  )
  low = jax.lax.reduce_window(
    jnp.where(known < 0, unknown, known), unknown, jax.lax.min, *window
  )
  return jnp.where((known < 0) & (high == low), high, known)


def check_ids(name: str, ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Checks an id map that a user gives with a photo.

  Args:
    name: of the argument, for the error.
    ids: what was given.
    size: (H, W) of the photo.

  Returns:
    int32 [H, W], its ids renumbered as 0, 1, ... in the order of their first
    pixels; -1 where nothing is said.

  Raises:
    ValueError: if it is no id map of this size.
  """
  ids = np.asarray(ids)
  if ids.dtype.kind not in 'iu' or ids.shape != tuple(size):
    raise ValueError(
      f'{name} must be integers {list(size)}, the size of the photo, but is '
      f'{ids.dtype} {list(ids.shape)}'
    )
  if ids.size and ids.min() < IGNORE_ID:
    raise ValueError(
      f'{name} contains {ids.min()}; ids are 0 or more, and -1 is not said'
    )
  said = np.append(IGNORE_ID, ids.ravel().astype(np.int64))  # -1 is the first
  return relabel.by_first_appearance(said)[1:].reshape(ids.shape) - 1


def shrink(known: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Reduces known ids to the model's size without losing a single pixel.

  Args:
    known: int [H, W], -1 where nothing is said.
    size: (h, w), at most (H, W).

  Returns:
    int32 [h, w]: the id that most known pixels of a cell have, the first of
    equals; -1 where a cell has none.
  """
  small = np.full(size, IGNORE_ID, np.int32)
  ys, xs = np.nonzero(known >= 0)
  if not len(ys):
    return small
  rows, columns = (
    along * new // old
    for along, new, old in zip((ys, xs), size, known.shape, strict=True)
  )
  cells = rows * size[1] + columns
  ids = known[ys, xs].astype(np.int64)
  count = int(ids.max()) + 1
  pairs, votes = np.unique(cells * count + ids, return_counts=True)
  order = np.lexsort((-pairs, votes))  # the last to be written wins
  small.ravel()[pairs[order] // count] = pairs[order] % count
  return small
