"""Id maps at the photo's size from those at the size they were decided at."""

import numpy as np
import pytest
from PIL import Image

from bitseg_jax.evaluation import upsample


@pytest.mark.parametrize('size', [(63, 40), (9, 13), (24, 13), (9, 60)])
def test_each_pixel_gets_the_largest_interpolated_membership(size):
  ids = np.random.default_rng(0).integers(0, 6, (9, 13))
  planes = [
    Image.fromarray((ids == k).astype(np.float32)).resize(
      size[::-1], Image.Resampling.BILINEAR
    )
    for k in range(6)
  ]
  found = upsample.smooth_ids(ids, size)
  assert found.dtype == np.int32
  won = np.take_along_axis(np.stack(planes), found[None], axis=0)[0]
  np.testing.assert_allclose(won, np.max(planes, axis=0), atol=1e-5)
  np.testing.assert_array_equal(upsample.smooth_ids(ids, ids.shape), ids)


@pytest.mark.parametrize('shape', [(1, 1), (1, 7), (5, 1)])
def test_lines_of_pixels_are_enlarged(shape):
  ids = np.arange(np.prod(shape)).reshape(shape)
  found = upsample.smooth_ids(ids, (40, 30))
  np.testing.assert_array_equal(np.unique(found), np.unique(ids))
  values = upsample.upsample_values(np.ones(shape, np.float32), (40, 30))
  np.testing.assert_array_equal(values, np.ones((40, 30)))


def test_id_maps_are_enlarged_without_stairs():
  y, x = np.indices((16, 16))
  ids = (x > y) + 2 * (x + y > 22)
  found = upsample.smooth_ids(ids, (160, 128))
  y, x = (np.indices((160, 128)) + 0.5) * [[[0.1]], [[0.125]]]
  true = (x > y + 0.5) + 2 * (x + y > 23.5)
  stairs = ids.repeat(10, 0).repeat(8, 1)
  assert (found != true).mean() < 0.5 * (stairs != true).mean()
