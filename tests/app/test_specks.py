"""Small pieces join their neighbours: all of them, and nothing else changes."""

import numpy as np
import pytest
from scipy import ndimage

from bitseg_jax.app import specks
from bitseg_jax.app.segmenter import Segmenter


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


def smallest_piece(id_map):
  areas = [
    np.bincount(ndimage.label(id_map == k)[0].ravel())[1:].min()
    for k in np.unique(id_map)
  ]
  return min(areas)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('least', [2, 10, 60])
def test_no_piece_is_smaller_than_asked(seed, least):
  rng = np.random.default_rng(seed)
  id_map = rng.integers(0, 6, (20, 30)).repeat(2, 0)[:, ::2]
  found = specks.join(id_map, least / id_map.size)
  assert smallest_piece(found) >= least
  np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))
  same = specks.join(id_map, 1 / id_map.size)
  np.testing.assert_array_equal(same, id_map)


def test_a_speck_joins_what_surrounds_it_and_large_pieces_stay():
  id_map = np.zeros((12, 12), int)
  id_map[:, 6:] = 1
  clean = id_map.copy()
  id_map[3, 8] = 2
  id_map[5:7, 1:3] = 1  # a segment's own speck elsewhere
  np.testing.assert_array_equal(specks.join(id_map, 5 / 144), clean)
  np.testing.assert_array_equal(specks.join(id_map, 1 / 144), id_map)
  # A speck among specks joins the segment around them all.
  id_map[8:10, 8:10] = [[3, 4], [5, 6]]
  np.testing.assert_array_equal(specks.join(id_map, 5 / 144), clean)


def test_what_is_known_stays():
  id_map = np.zeros((12, 12), int)
  id_map[4, 4], id_map[8, 8] = 1, 2
  keep = np.zeros((12, 12), bool)
  keep[8, 8] = True
  found = specks.join(id_map, 0.1, keep)
  assert found[8, 8] != found[0, 0] and found[4, 4] == found[0, 0]
  assert specks.join(np.zeros((3, 3), int), 0.5).max() == 0


def test_pieces_that_do_not_touch_get_ids_of_their_own(model, draw_photo):
  """Two coins of one id; they were counted as one."""
  id_map = np.zeros((12, 12), int)
  id_map[2:4, 2:4] = id_map[8:10, 8:10] = 1
  found = specks.split_disconnected(id_map)
  assert len(np.unique(found)) == 3 and found[2, 2] != found[8, 8]
  id_map[4:6, 4:6] = 1  # a corner touches
  assert len(np.unique(specks.split_disconnected(id_map))) == 3
  known = np.full((12, 12), -1)
  known[2, 2] = known[8, 8] = 4
  found = specks.split_disconnected(id_map, known)
  assert len(np.unique(found)) == 2 and found[2, 2] == found[8, 8]
  result = model.segment(draw_photo(0, 40, 60), 3, split_disconnected=True)
  for one in (result.id_map, *result.samples):
    for k in np.unique(one):
      assert ndimage.label(one == k, np.ones((3, 3)))[1] == 1
  assert len(result.confidence) == result.id_map.max() + 1
