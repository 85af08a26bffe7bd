"""Masks at the photo's size from memberships at the model's."""

import numpy as np
import pytest
from PIL import Image

from bitseg_jax.evaluation import upsample


def draw_membership(seed, height, width, count):
  p = np.random.default_rng(seed).random((height, width, count), np.float32)
  return p**4 / (p**4).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize('band', [50, 1 << 22])
@pytest.mark.parametrize('size', [(63, 40), (9, 13), (4, 5), (9, 60), (1, 1)])
def test_each_pixel_gets_the_largest_interpolated_membership(
  monkeypatch, size, band
):
  monkeypatch.setattr(upsample, '_BAND_PIXELS', band)
  membership = draw_membership(0, 9, 13, 6)
  planes = [
    Image.fromarray(np.ascontiguousarray(plane)).resize(
      size[::-1], Image.Resampling.BILINEAR
    )
    for plane in np.moveaxis(membership, -1, 0)
  ]
  expected = np.argmax(planes, axis=0)
  found = upsample.upsample_ids(membership, size)
  np.testing.assert_array_equal(found, expected)


def test_slanted_borders_are_straight_where_ids_make_stairs():
  y, x = np.indices((16, 16))
  inside = np.clip((x - y) / 2 + 0.5, 0, 1).astype(np.float32)
  membership = np.stack([1 - inside, inside], axis=-1)
  found = upsample.upsample_ids(membership, (160, 160))
  y, x = np.indices((160, 160))
  border = 5  # half a pixel of the model: the diagonal is one of its centres
  wrong = (found == 1) != (x > y)
  assert not (wrong & (abs(x - y) > border)).any()
  stairs = (inside > 0.5).repeat(10, 0).repeat(10, 1)
  assert wrong.sum() < 0.3 * (stairs != (x > y)).sum()


def test_memberships_keep_what_was_decided():
  rng = np.random.default_rng(0)
  probabilities = draw_membership(1, 6, 7, 8)[None].repeat(3, 0)
  codes = rng.integers(0, 8, (3, 6, 7))
  id_map = rng.integers(0, 3, (6, 7))
  id_map[0, :3] = range(3)
  found = upsample.memberships(id_map, codes, probabilities)
  assert found.shape == (6, 7, 3)
  np.testing.assert_array_equal(found.argmax(axis=-1), id_map)
  assert 0 <= found.min() <= found.max() <= 1


def test_memberships_of_one_sample_are_its_probabilities():
  p = draw_membership(2, 6, 7, 4)[None]
  codes = p.argmax(axis=-1)
  found = upsample.memberships(codes[0], codes, p)
  np.testing.assert_allclose(found, p[0], atol=2e-3)


def test_codes_without_probability_count_as_certain():
  codes = np.array([[[0, 9], [0, 9]]])
  ids = np.array([[0, 1], [0, 1]])
  found = upsample.memberships(ids, codes, np.full((1, 2, 2, 4), 0.25))
  np.testing.assert_allclose(found[..., 1], ids, atol=1e-6)


@pytest.mark.parametrize('band', [300, 1 << 22])
def test_id_maps_are_enlarged_without_stairs(monkeypatch, band):
  monkeypatch.setattr(upsample, '_BAND_PIXELS', band)
  y, x = np.indices((16, 16))
  ids = (x > y) + 2 * (x + y > 22)
  np.testing.assert_array_equal(upsample.smooth_ids(ids, ids.shape), ids)
  found = upsample.smooth_ids(ids, (160, 128))
  y, x = (np.indices((160, 128)) + 0.5) * [[[0.1]], [[0.125]]]
  true = (x > y + 0.5) + 2 * (x + y > 23.5)
  stairs = ids.repeat(10, 0).repeat(8, 1)
  assert (found != true).mean() < 0.5 * (stairs != true).mean()
