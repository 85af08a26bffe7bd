"""Regions of a photo along its edges, specks that join, pieces that part."""

import numpy as np
import pytest
from scipy import ndimage

from bitseg_jax.app import answer, regions
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.segmenter import Segmenter


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


def made(photo, codes, **options):
  """The answer of samples."""
  options = AnswerOptions(**options)
  certain = np.ones(codes.shape[1:], np.float32)
  drafted = answer.draft(photo, codes, certain, options)
  return answer.finish(drafted, None, options)


def two_halves(dark=20, bright=220):
  photo = np.full((32, 32, 3), dark, np.uint8)
  photo[:, 13:] = bright
  return photo


@pytest.mark.parametrize('shape', [(1, 1), (1, 90), (3, 2), (64, 40)])
def test_every_pixel_is_in_a_region(draw_photo, shape):
  found = regions.split(draw_photo(0, *shape))
  assert found.shape == shape and found.dtype == np.int32
  np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))


def test_regions_end_at_edges_in_any_light():
  found = regions.split(two_halves())
  assert not set(np.unique(found[:, :13])) & set(np.unique(found[:, 13:]))
  np.testing.assert_array_equal(regions.split(two_halves(2, 12)), found)
  assert regions.split(two_halves(90, 90)).max() == 0


def test_borders_follow_the_photo():
  """An edge of the photo within a pixel of the model."""
  ids = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 8, axis=0)
  codes = np.stack([ids, ids])
  found = made(two_halves(), codes)
  columns = np.indices((32, 32))[1]
  wrong = found.id_map != (columns >= 13)
  assert not wrong[columns > 14].any()  # before that the edge is blurred
  np.testing.assert_array_equal(found.sample(1), found.id_map)
  # Without regions the border is where the model has it.
  plain = made(two_halves(), codes, follow_edges=False)
  np.testing.assert_array_equal(plain.id_map, columns >= 16)
  # What the model sees whole has no edges between its pixels.
  small = two_halves()[::4, ::4]
  np.testing.assert_array_equal(made(small, codes).id_map, ids)


def test_large_regions_go_from_fine_to_coarse(draw_photo):
  photo = draw_photo(0, 60, 90)
  found = np.stack(regions.large(photo))
  assert found.shape == (5, 60, 90) and found.dtype == np.int32
  counts = found.max(axis=(1, 2)) + 1
  assert (np.diff(counts) <= 0).all() and counts[-1] < counts[0]
  halves = regions.large(two_halves())
  left, right = np.unique(halves[0][:, :10]), np.unique(halves[0][:, 16:])
  assert len(left) == len(right) == 1 and left != right


def test_colours_vote_where_samples_differ():
  """Four samples show halves and one quarters; so do the photo's colours."""
  rows, columns = np.indices((32, 32))
  quarters = 2 * (rows // 16) + columns // 16
  photo = np.array([0, 80, 160, 240], np.uint8)[quarters]
  photo = np.repeat(photo[..., None], 3, axis=-1)
  small = quarters[::4, ::4]
  codes = np.stack([small // 2] * 4 + [small])
  counts = lambda result: len(np.unique(result.id_map))
  assert counts(made(photo, codes, color_votes=False)) == 2
  found = made(photo, codes)
  np.testing.assert_array_equal(found.id_map, quarters)
  # Samples stay what they are, and so does one of them as an answer.
  assert [found.sample(n).max() + 1 for n in range(5)] == [2, 2, 2, 2, 4]
  assert counts(made(photo, codes[:1])) == 2


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
  found = regions.join_specks(id_map, least / id_map.size)
  assert smallest_piece(found) >= least
  np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))
  same = regions.join_specks(id_map, 1 / id_map.size)
  np.testing.assert_array_equal(same, id_map)


def test_a_speck_joins_what_surrounds_it_and_large_pieces_stay():
  id_map = np.zeros((12, 12), int)
  id_map[:, 6:] = 1
  clean = id_map.copy()
  id_map[3, 8] = 2
  id_map[5:7, 1:3] = 1  # a segment's own speck elsewhere
  np.testing.assert_array_equal(regions.join_specks(id_map, 5 / 144), clean)
  np.testing.assert_array_equal(regions.join_specks(id_map, 1 / 144), id_map)
  # A speck among specks joins the segment around them all.
  id_map[8:10, 8:10] = [[3, 4], [5, 6]]
  np.testing.assert_array_equal(regions.join_specks(id_map, 5 / 144), clean)


def test_what_is_known_stays():
  id_map = np.zeros((12, 12), int)
  id_map[4, 4], id_map[8, 8] = 1, 2
  known = np.full((12, 12), -1)
  known[8, 8] = 0
  found = regions.join_specks(id_map, 0.1, known)
  assert found[8, 8] != found[0, 0] and found[4, 4] == found[0, 0]
  assert regions.join_specks(np.zeros((3, 3), int), 0.5).max() == 0


def test_pieces_that_do_not_touch_get_ids_of_their_own(model, draw_photo):
  """Two coins of one id; they were counted as one."""
  id_map = np.zeros((12, 12), int)
  id_map[2:4, 2:4] = id_map[8:10, 8:10] = 1
  found = regions.split_disconnected(id_map)
  assert len(np.unique(found)) == 3 and found[2, 2] != found[8, 8]
  id_map[4:6, 4:6] = 1  # a corner touches
  assert len(np.unique(regions.split_disconnected(id_map))) == 3
  known = np.full((12, 12), -1)
  known[2, 2] = known[8, 8] = 4
  found = regions.split_disconnected(id_map, known)
  assert len(np.unique(found)) == 2 and found[2, 2] == found[8, 8]
  result = model.segment(draw_photo(0, 40, 60), 3, split_disconnected=True)
  for one in (result.id_map, *result.samples):
    for k in np.unique(one):
      assert ndimage.label(one == k, np.ones((3, 3)))[1] == 1
  assert len(result.confidence) == result.id_map.max() + 1
