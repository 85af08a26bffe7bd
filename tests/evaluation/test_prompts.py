"""Known pixels: drawn for training, and reduced."""

import jax
import numpy as np
import pytest

from bitseg_jax.evaluation import prompts


def id_maps(seed, count=6, size=(20, 30), ids=5):
  rng = np.random.default_rng(seed)
  return [
    np.kron(
      rng.integers(0, ids, (size[0] // 5, size[1] // 5)), np.ones((5, 5))
    ).astype(np.int32)
    for _ in range(count)
  ]


def marks(true, count, seed=0):
  known = np.full(true.shape, -1, np.int32)
  places = np.random.default_rng(seed).permutation(true.size)[:count]
  known.ravel()[places] = true.ravel()[places]
  return known


def test_training_marks_are_true_and_as_frequent_as_asked():
  codes = np.stack([np.pad(m, 2, constant_values=-1) for m in id_maps(0, 400)])
  draw = jax.jit(prompts.draw_marks, static_argnums=(2, 3))
  known = np.asarray(draw(jax.random.key(0), codes, 16, 0.5))
  assert ((known == codes) | (known == -1)).all()
  given = (known >= 0).any(axis=(1, 2))
  assert 0.4 < given.mean() < 0.6
  assert len({len(np.unique(k)) for k in known[given]}) >= 5
  none = np.asarray(draw(jax.random.key(0), codes, 16, 0.0))
  assert (none == -1).all()


def test_wider_marks_touch_no_other():
  known = np.full((1, 6, 8), -1, np.int32)
  known[0, 1, 1], known[0, 1, 3], known[0, 4, 6] = 3, 5, 5
  wide = np.asarray(prompts.widen(known))[0]
  assert (wide[known[0] >= 0] == known[0][known[0] >= 0]).all()
  np.testing.assert_array_equal(wide[:3, 0], 3)
  np.testing.assert_array_equal(wide[:3, 2], -1)  # beside both
  assert (wide == 5).sum() == 6 + 9


def test_no_known_pixel_is_lost_where_cells_have_room():
  known = np.full((40, 60), -1, np.int32)
  known[3, 7], known[39, 59], known[20, 20:24] = 0, 1, 2
  known[20, 20] = 1  # outvoted in its cell
  small = prompts.shrink(known, (10, 15))
  assert small[0, 1] == 0
  assert small[9, 14] == 1
  assert small[5, 5] == 2
  assert (small >= 0).sum() == 3
  np.testing.assert_array_equal(prompts.shrink(known, known.shape), known)


@pytest.mark.parametrize(
  ('ids', 'reason'),
  [
    (np.zeros((4, 5)), 'integers'),
    (np.zeros((5, 4), int), r'\[4, 5\]'),
    (np.zeros((4, 5, 1), int), r'\[4, 5\]'),
    (np.full((4, 5), -2), '-2'),
    (np.array([]), 'integers'),
  ],
)
def test_what_is_no_id_map_is_refused(ids, reason):
  with pytest.raises(ValueError, match=reason) as error:
    prompts.check_ids('known', ids, (4, 5))
  assert '\n' not in str(error.value)


def test_ids_are_renumbered_without_gaps():
  given = np.array([[-1, 7, 2**40], [7, -1, 0]])
  np.testing.assert_array_equal(
    prompts.check_ids('known', given, (2, 3)), [[-1, 0, 1], [0, -1, 2]]
  )
