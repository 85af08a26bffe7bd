"""Regions of a photo: whole, along its edges, whatever its size and light."""

import numpy as np
import pytest

from bitseg_jax.segmenting import answer, regions


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
