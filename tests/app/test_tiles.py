"""Large photos in tiles: what they cover, and how their segments are joined."""

import numpy as np
import pytest

from bitseg_jax import metrics
from bitseg_jax.app import tiles as tiling
from bitseg_jax.app.segmenter import Segmenter


def cut(picture, tiles):
  return [tiling.crop(picture, tile.box) for tile in tiles]


@pytest.mark.parametrize(
  ('size', 'side'),
  [((100, 170), 64), ((64, 64), 64), ((5, 300), 7), ((3, 2), 9)],
)
def test_tiles_cover_and_overlap(size, side):
  tiles = tiling.split(size, side)
  covered, filled = np.zeros(size, int), np.zeros(size, int)
  for (top, left, bottom, right), own in tiles:
    assert (bottom - top, right - left) == tuple(np.minimum(side, size))
    covered[top:bottom, left:right] += 1
    tiling.crop(filled, own)[:] += 1
  assert covered.min() == 1 and (filled == 1).all()
  # Neighbours share at least a quarter of a tile, rounded down.
  lefts = sorted({tile.box[1] for tile in tiles})
  assert all(np.diff(lefts) <= side - int(side * tiling._OVERLAP))
  picture = np.arange(covered.size, dtype=np.float32).reshape(size)
  np.testing.assert_array_equal(
    tiling.join(cut(picture, tiles), tiles), picture
  )


def test_segments_go_on_in_the_next_tile():
  whole = np.zeros((100, 170), int)
  whole[20:80, 30:140] = 1
  whole[:, 150:] = 2
  tiles = tiling.split(whole.shape, 64)
  # Every tile numbers its segments in its own way.
  parts = [
    np.unique(part, return_inverse=True)[1].reshape(part.shape)
    for part in cut(whole, tiles)
  ]
  merged = tiling.merge_ids(parts, tiles)
  assert metrics.adjusted_rand_index(whole, merged) == 1
  np.testing.assert_array_equal(np.unique(merged), range(3))


def test_what_differs_in_the_overlap_stays_apart():
  tiles = tiling.split((16, 28), 16)
  assert [tile.box for tile in tiles] == [(0, 0, 16, 16), (0, 12, 16, 28)]
  left, right = np.zeros((16, 16), int), np.zeros((16, 16), int)
  left[:8] = 1  # half of the rows
  right[:, :3] = 1  # three columns of the four that overlap
  merged = tiling.merge_ids([left, right], tiles)
  assert len(np.unique(merged)) == 4


def test_tiles_make_one_map_of_a_large_photo(random_run, draw_photo):
  model, photo = Segmenter.from_checkpoint(random_run), draw_photo(0, 40, 70)
  result = model.segment(photo, num_samples=2, tile=32)
  assert result.samples.shape == (2, 40, 70)
  assert result.uncertainty.shape == result.id_map.shape == (40, 70)
  ids = np.unique(result.id_map)
  np.testing.assert_array_equal(ids, np.arange(len(result.confidence)))
  # Where no other tile reaches, it is what the tile alone gives.
  corner = model.segment(photo[:32, :32], num_samples=2)
  inner = np.s_[:8, :19]
  ari = metrics.adjusted_rand_index(corner.id_map[inner], result.id_map[inner])
  assert ari == 1
  # A photo that is no larger than one tile is not cut.
  whole = model.segment(photo, tile=70)
  np.testing.assert_array_equal(whole.id_map, model.segment(photo).id_map)
  with pytest.raises(ValueError, match='tile is 8; it must be at least 16'):
    model.segment(photo, tile=8)
  with pytest.raises(ValueError, match='cannot be used with tile'):
    model.segment(photo, tile=32, known=np.zeros((40, 70), int))
