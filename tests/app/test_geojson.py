"""Segmentations as polygons: they hold the pixels that they were made of."""

import json

import numpy as np
import pytest

from bitseg_jax import relabel
from bitseg_jax.app import geojson
from bitseg_jax.data import rle


def random_map(seed):
  """Noise: pieces, holes, holes in pieces in holes, pixels at corners."""
  rng = np.random.default_rng(seed)
  size = rng.integers(1, 16, 2)
  return relabel.compact(rng.integers(0, rng.integers(2, 6), size))[0]


def bull_eye():
  y, x = np.indices((40, 30))
  return relabel.compact((np.hypot(y - 19, x - 12) / 4).astype(int))[0]


MAPS = [
  *map(random_map, range(20)),
  np.zeros((1, 1), int),
  bull_eye(),
]


def polygons(feature):
  geometry = feature['geometry']
  single = geometry['type'] == 'Polygon'
  return [geometry['coordinates']] if single else geometry['coordinates']


def fill(feature, size):
  """bool [H, W], by the rule of COCO's polygons in this package."""
  inside = np.zeros(size[::-1], bool)
  for polygon in polygons(feature):
    for ring in polygon:  # even-odd: holes take away
      corners = np.ravel(ring[:-1]).tolist()
      inside.ravel()[rle.decode([corners], *size)] ^= True
  return inside.T


@pytest.mark.parametrize('id_map', MAPS)
def test_polygons_hold_the_pixels_they_are_made_of(id_map):
  count = id_map.max() + 1
  found = geojson.features(id_map, np.linspace(0, 1, count))
  assert json.loads(json.dumps(found)) == found
  assert found['type'] == 'FeatureCollection'
  assert len(found['features']) == count
  drawn = np.zeros(id_map.shape, int)
  for k, feature in enumerate(found['features']):
    inside, about = fill(feature, id_map.shape), feature['properties']
    assert (about['id'], about['area']) == (k + 1, inside.sum())
    assert about['score'] == pytest.approx(
      np.linspace(0, 1, count)[k], abs=1e-4
    )
    drawn += (k + 1) * inside
  np.testing.assert_array_equal(drawn - 1, id_map)


@pytest.mark.parametrize('id_map', MAPS)
def test_rings_are_as_the_standard_asks(id_map):
  for feature in geojson.features(id_map, np.ones(99))['features']:
    area = 0
    for polygon in polygons(feature):
      for number, ring in enumerate(np.array(r) for r in polygon):
        np.testing.assert_array_equal(ring[0], ring[-1])
        # No point twice: rings touch neither themselves nor run back.
        assert len(np.unique(ring[:-1], axis=0)) == len(ring) - 1
        # Sides of pixels, and at each point a turn.
        across = np.diff(ring, axis=0) != 0
        assert (across.sum(axis=1) == 1).all()
        assert (across[:-1] != across[1:]).all()
        (x, y), (u, v) = ring[:-1].T, ring[1:].T
        signed = (x * v - u * y).sum() / 2
        assert (signed > 0) == (number == 0)
        area += signed
    assert area == feature['properties']['area']


def test_a_ring_of_pixels_has_a_hole():
  id_map = np.zeros((5, 6), int)
  id_map[1:4, 1:5] = 1
  around, within = geojson.features(id_map, np.ones(2))['features']
  assert within['geometry'] == {
    'type': 'Polygon',
    'coordinates': [[[1, 1], [5, 1], [5, 4], [1, 4], [1, 1]]],
  }
  outer, hole = around['geometry']['coordinates']
  assert sorted(map(tuple, outer[1:])) == [(0, 0), (0, 5), (6, 0), (6, 5)]
  assert sorted(map(tuple, hole[1:])) == [(1, 1), (1, 4), (5, 1), (5, 4)]
