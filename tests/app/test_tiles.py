"""Tiles cover a photo, and segments go on over their seams."""

import numpy as np
import pytest

from bitseg_jax import metrics
from bitseg_jax.app import tiles


def cut(picture, boxes):
  return [picture[top:bottom, left:right] for top, left, bottom, right in boxes]


@pytest.mark.parametrize(
  ('size', 'tile'),
  [((100, 170), 64), ((64, 64), 64), ((5, 300), 7), ((3, 2), 9)],
)
def test_tiles_cover_and_overlap(size, tile):
  boxes = tiles.split(size, tile)
  covered = np.zeros(size, int)
  for top, left, bottom, right in boxes:
    assert (bottom - top, right - left) == (
      min(tile, size[0]),
      min(tile, size[1]),
    )
    covered[top:bottom, left:right] += 1
  assert covered.min() == 1
  # Neighbours share at least a quarter of a tile, rounded down.
  lefts = sorted({box[1] for box in boxes})
  assert all(np.diff(lefts) <= tile - int(tile * tiles.OVERLAP))
  picture = np.arange(covered.size, dtype=np.float32).reshape(size)
  parts = cut(picture, boxes)
  np.testing.assert_array_equal(tiles.join(parts, boxes), picture)
  np.testing.assert_allclose(tiles.blend(parts, boxes), picture, rtol=1e-5)


def test_segments_go_on_in_the_next_tile():
  whole = np.zeros((100, 170), int)
  whole[20:80, 30:140] = 1
  whole[:, 150:] = 2
  boxes = tiles.split(whole.shape, 64)
  # Every tile numbers its segments in its own way.
  parts = [
    np.unique(part, return_inverse=True)[1].reshape(part.shape)
    for part in cut(whole, boxes)
  ]
  merged = tiles.merge_ids(parts, boxes)
  assert metrics.adjusted_rand_index(whole, merged) == 1
  np.testing.assert_array_equal(np.unique(merged), range(3))


def test_what_differs_in_the_overlap_stays_apart():
  boxes = [(0, 0, 4, 8), (0, 4, 4, 12)]
  left, right = np.zeros((4, 8), int), np.zeros((4, 8), int)
  left[:2] = 1  # two rows and two rows
  right[:, :3] = 1  # three columns of the four that overlap
  merged = tiles.merge_ids([left, right], boxes)
  assert len(np.unique(merged)) == 4
