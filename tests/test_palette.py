"""Palettes and assignment: golden values, injectivity, overflow."""

import numpy as np
import pytest

from bitseg_jax import palette as palettes


def voronoi(num_entities, size=48, seed=0):
  """Id map of the cells around random points, with some ignored pixels."""
  rng = np.random.default_rng(seed)
  points = rng.uniform(0, size, (num_entities, 2))
  grid = np.stack(np.mgrid[:size, :size], -1) + 0.5
  distance = np.linalg.norm(grid[:, :, None] - points, axis=-1)
  id_map = rng.permutation(10 * num_entities)[np.argmin(distance, -1)]
  id_map[-5:] = -1
  return id_map.astype(np.int32)


def test_golden_palettes(golden):
  names = [n for n in golden if n.startswith('palette/')]
  for name in names:
    _, order, num_codes = name.split('/')
    made = palettes.make_palette(int(num_codes), order)
    np.testing.assert_array_equal(made, golden[name], err_msg=name)
  assert len(names) == 12


@pytest.mark.parametrize('overflow', palettes.OVERFLOWS)
def test_golden_assignments(golden, overflow):
  palette = palettes.make_palette(64, 'similar')
  for i in range(6):
    codes = palettes.assign_codes(
      golden[f'assign/{i}/labels'], palette, overflow
    )
    np.testing.assert_array_equal(codes, golden[f'assign/{i}/classes'])


@pytest.mark.parametrize('order', palettes.ORDERS)
@pytest.mark.parametrize('num_codes', [4, 64, 256])
def test_a_palette_holds_every_code_once(order, num_codes):
  palette = palettes.make_palette(num_codes, order, seed=3)
  assert palette.shape == (num_codes**0.5,) * 2
  np.testing.assert_array_equal(np.sort(palette.ravel()), np.arange(num_codes))


def test_similar_neighbours_differ_in_one_bit():
  palette = palettes.make_palette(256, 'similar')
  for axis in (0, 1):
    near = palette ^ np.roll(palette, 1, axis)
    np.testing.assert_array_equal(np.bitwise_count(near), 1)


def test_random_palettes_follow_their_seed():
  first, same, other = (
    palettes.make_palette(64, 'random', seed) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, same)
  assert np.any(first != other)


def partition(id_map):
  """The segmentation without its ids: first pixel of every pixel's entity."""
  _, first, inverse = np.unique(id_map, return_index=True, return_inverse=True)
  return first[inverse].reshape(id_map.shape)


@pytest.mark.parametrize('num_entities', [1, 5, 30, 64])
def test_assignment_keeps_the_partition(num_entities):
  id_map = voronoi(num_entities)
  palette = palettes.make_palette(64, 'similar')
  rng = np.random.default_rng(0)
  for codes in (
    palettes.assign_codes(id_map, palette),
    palettes.assign_random_codes(id_map, 64, rng),
  ):
    np.testing.assert_array_equal(partition(codes), partition(id_map))
    np.testing.assert_array_equal(codes == -1, id_map == -1)
    assert codes.max() < 64


def test_no_palette_draws_anew_at_every_visit():
  rng = np.random.default_rng(0)
  id_map = voronoi(5)
  first, second = (
    palettes.assign_random_codes(id_map, 64, rng) for _ in range(2)
  )
  assert np.any(first != second)


def test_lone_entities_take_the_cell_they_lie_in():
  palette = palettes.make_palette(16, 'range')
  for row in range(4):
    for column in range(4):
      id_map = np.full((32, 32), -1)
      id_map[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 7
      codes = palettes.assign_codes(id_map, palette)
      assert codes.max() == palette[row, column]


@pytest.mark.parametrize('overflow', palettes.OVERFLOWS)
def test_overflow_merges_and_never_splits(overflow):
  id_map = voronoi(60)
  labels, count = palettes.merge_smallest(id_map, 16, overflow)
  assert count == 16 == len(np.unique(labels[labels >= 0]))
  np.testing.assert_array_equal(labels == -1, id_map == -1)
  for entity in np.unique(id_map[id_map >= 0]):
    assert len(np.unique(labels[id_map == entity])) == 1


def test_overflow_joins_neighbours_or_the_largest():
  id_map = np.zeros((8, 8), int)
  id_map[:, 4:] = 1
  id_map[:3, 4:] = 2
  id_map[0, 7] = 3  # inside 2, far from 0, the largest
  near, _ = palettes.merge_smallest(id_map, 3, 'neighbour')
  assert near[0, 7] == near[0, 6]
  official, _ = palettes.merge_smallest(id_map, 3, 'largest')
  assert official[0, 7] == official[0, 0]


def test_thousands_of_entities_fit():
  id_map = np.arange(64 * 64).reshape(64, 64)
  _, count = palettes.merge_smallest(id_map, 64)
  assert count == 64


@pytest.mark.parametrize('scale', [1, 10**8])  # by counting, by sorting
@pytest.mark.parametrize('ignored', [True, False])
def test_compact_ids(scale, ignored):
  id_map = np.array([[7, 7, 3], [3, 12, -1 if ignored else 12]]) * scale
  compact, count = palettes.compact_ids(id_map)
  np.testing.assert_array_equal(
    compact, [[1, 1, 0], [0, 2, -1 if ignored else 2]]
  )
  assert count == 3


def test_an_image_without_entities_stays_ignored():
  id_map = np.full((4, 4), -1)
  palette = palettes.make_palette(4, 'similar')
  assert np.all(palettes.assign_codes(id_map, palette) == -1)


def test_impossible_palettes_are_refused():
  with pytest.raises(ValueError, match='fills no square'):
    palettes.make_palette(8, 'similar')  # three bits
  with pytest.raises(ValueError, match='power of four'):
    palettes.make_palette(25, 'similar')
  with pytest.raises(ValueError, match='unknown palette order'):
    palettes.make_palette(64, 'gray')


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int8, bool])
def test_ids_may_be_of_any_integer_type(dtype):
  id_map = np.indices((8, 8))[0] // 4
  order = palettes.make_palette(16, 'similar')
  expected = palettes.assign_codes(id_map, order)
  found = palettes.assign_codes(id_map.astype(dtype), order)
  np.testing.assert_array_equal(found, expected)
