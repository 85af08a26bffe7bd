"""Regions of a photo: whole, along its edges, whatever its size and light."""

import numpy as np
import pytest

from bitseg_jax.app import answer, regions


def two_halves(dark=20, bright=220):
  photo = np.full((32, 32, 3), dark, np.uint8)
  photo[:, 13:] = bright
  return photo


@pytest.mark.parametrize('shape', [(1, 1), (1, 90), (3, 2), (64, 40)])
def test_every_pixel_is_in_a_region(draw_photo, shape):
  found = regions.split(draw_photo(0, *shape))
  assert found.shape == shape and found.dtype == np.int32
  np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))


def test_asked_again_they_are_the_same_and_whatever_came_between(draw_photo):
  photo, other = (draw_photo(i, 40, 30) for i in range(2))
  first = regions.split(photo).copy()
  regions.split(other), regions.split(photo.reshape(30, 40, 3))
  np.testing.assert_array_equal(regions.split(photo.copy()), first)
  with pytest.raises(ValueError, match='read-only'):
    regions.split(photo)[0] = 1  # or the next one would see it


def test_regions_end_at_edges_in_any_light():
  found = regions.split(two_halves())
  assert not set(np.unique(found[:, :13])) & set(np.unique(found[:, 13:]))
  np.testing.assert_array_equal(regions.split(two_halves(2, 12)), found)
  assert regions.split(two_halves(90, 90)).max() == 0


def test_borders_follow_the_photo():
  """An edge of the photo within a pixel of the model."""
  ids = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 8, axis=0)
  codes = np.stack([ids, ids])
  certain = lambda n: np.eye(2, dtype=np.float32)[ids]
  made = lambda *photo: answer.from_samples(codes, certain, *photo)
  found = made(two_halves())
  columns = np.indices((32, 32))[1]
  wrong = found.id_map != (columns >= 13)
  assert not wrong[columns > 14].any()  # before that the edge is blurred
  np.testing.assert_array_equal(found.sample(1), found.id_map)
  # Without regions the border is where the model has it.
  plain = answer.from_samples(codes, certain, two_halves(), follow_edges=False)
  np.testing.assert_array_equal(plain.id_map, columns >= 16)
  # What the model sees whole has no edges between its pixels.
  small = two_halves()[::4, ::4]
  np.testing.assert_array_equal(made(small).id_map, ids)


def test_large_regions_go_from_fine_to_coarse(draw_photo):
  photo = draw_photo(0, 60, 90)
  found = regions.large(photo)
  assert found.shape == (5, 60, 90) and found.dtype == np.int32
  counts = found.max(axis=(1, 2)) + 1
  assert (np.diff(counts) <= 0).all() and counts[-1] < counts[0]
  halves = regions.large(two_halves())
  np.testing.assert_array_equal(halves[0], np.indices((32, 32))[1] >= 13)


def test_colours_vote_where_samples_differ():
  """Four samples show halves and one quarters; so do the photo's colours."""
  rows, columns = np.indices((32, 32))
  quarters = 2 * (rows // 16) + columns // 16
  photo = np.array([0, 80, 160, 240], np.uint8)[quarters]
  photo = np.repeat(photo[..., None], 3, axis=-1)
  small = quarters[::4, ::4]
  codes = np.stack([small // 2] * 4 + [small])
  certain = lambda n: np.eye(4, dtype=np.float32)[codes[n]]
  made = lambda **how: answer.from_samples(codes, certain, photo, **how)
  counts = lambda result: len(np.unique(result.id_map))
  assert counts(made(color_votes=False)) == 2
  np.testing.assert_array_equal(made().id_map, quarters)
  # Samples stay what they are, and so does one of them as an answer.
  assert [made().sample(n).max() + 1 for n in range(5)] == [2, 2, 2, 2, 4]
  assert counts(made(method='medoid')) == 2
  assert counts(answer.from_samples(codes[:1], certain, photo)) == 2
