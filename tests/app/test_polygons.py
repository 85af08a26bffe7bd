"""Segmentations as polygons: they hold the pixels that they were made of."""

import json

import numpy as np
import pytest
from pycocotools import mask
from scipy import ndimage
from skimage import measure

from bitseg_jax import relabel
from bitseg_jax.app import polygons
from bitseg_jax.data import labels, rle


def random_map(seed):
  """Noise: pieces, holes, holes in pieces in holes, pixels at corners."""
  rng = np.random.default_rng(seed)
  size = rng.integers(1, 16, 2)
  return relabel.compact(rng.integers(0, rng.integers(2, 6), size))[0]


def bull_eye():
  y, x = np.indices((40, 30))
  return relabel.compact((np.hypot(y - 19, x - 12) / 4).astype(int))[0]


def blobs(seed):
  """Smooth regions with holes and several pieces, as answers have."""
  noise = np.random.default_rng(seed).standard_normal((4, 40, 50))
  smooth = ndimage.gaussian_filter(noise, (0, 3, 3))
  return relabel.compact(smooth.argmax(axis=0))[0]


def area_of(ring):
  (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
  return (x * next_y - next_x * y).sum() / 2


def features(id_map):
  areas = np.bincount(id_map.ravel()).tolist()
  described = [
    {'id': k + 1, 'area': area, 'confidence': 1} for k, area in enumerate(areas)
  ]
  return polygons.geojson(id_map, described)


MAPS = [
  *map(random_map, range(20)),
  np.zeros((1, 1), int),
  blobs(7),
  bull_eye(),
]


def pieces_of(feature):
  geometry = feature['geometry']
  single = geometry['type'] == 'Polygon'
  return [geometry['coordinates']] if single else geometry['coordinates']


def fill(feature, size):
  """bool [H, W], by the rule of COCO's polygons in this package."""
  inside = np.zeros(size[::-1], bool)
  for polygon in pieces_of(feature):
    for ring in polygon:  # even-odd: holes take away
      corners = np.ravel(ring[:-1]).tolist()
      inside.ravel()[rle.decode([corners], *size)] ^= True
  return inside.T


@pytest.mark.parametrize('id_map', MAPS)
def test_polygons_hold_the_pixels_they_are_made_of(id_map):
  found = features(id_map)
  assert json.loads(json.dumps(found)) == found
  assert found['type'] == 'FeatureCollection'
  drawn = np.zeros(id_map.shape, int)
  for feature in found['features']:
    inside, about = fill(feature, id_map.shape), feature['properties']
    assert about['area'] == inside.sum()
    drawn += about['id'] * inside
  np.testing.assert_array_equal(drawn - 1, id_map)


@pytest.mark.parametrize('id_map', MAPS)
def test_one_ring_holds_them_too_where_there_are_holes(id_map):
  """COCO's polygons have no holes: exact for pycocotools and by area."""
  height, width = id_map.shape
  for k, rings in enumerate(polygons.coco(id_map)):
    assert len(rings) == measure.label(id_map == k, connectivity=1).max()
    lengths = mask.merge(mask.frPyObjects(rings, height, width))
    np.testing.assert_array_equal(mask.decode(lengths), id_map == k)
    areas = [area_of(np.reshape(ring, (-1, 2))) for ring in rings]
    assert sum(areas) == np.sum(id_map == k)


@pytest.mark.parametrize('id_map', MAPS)
def test_labelme_draws_the_pixels_they_are_made_of(id_map, tmp_path):
  """By the schema of labelme 5 and 6, drawn as labelme draws."""
  path = tmp_path / 'a.json'
  content = polygons.labelme(id_map, 'a.jpg')
  path.write_text(json.dumps(content))
  np.testing.assert_array_equal(labels.read_label(path) - 1, id_map)
  assert set(content) == {
    *('version', 'flags', 'shapes', 'imagePath', 'imageData'),
    *('imageHeight', 'imageWidth'),
  }
  areas = np.zeros(id_map.max() + 1)
  perimeter = 0
  for shape in content['shapes']:
    assert isinstance(shape['label'], str) and isinstance(shape['flags'], dict)
    assert shape['shape_type'] == 'polygon' and len(shape['points']) > 2
    ring = np.array(shape['points'])
    areas[shape['group_id'] - 1] += area_of(ring)
    perimeter += np.abs(ring - np.roll(ring, 1, axis=0)).sum()
  # Rings lie a quarter of a pixel within.
  lost = np.bincount(id_map.ravel()) - areas
  assert (lost >= 0).all() and lost.sum() <= 0.4 * perimeter


@pytest.mark.parametrize('id_map', MAPS)
def test_rings_are_as_the_standard_asks(id_map):
  for feature in features(id_map)['features']:
    area = 0
    for polygon in pieces_of(feature):
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
  around, within = features(id_map)['features']
  (ring,) = within['geometry']['coordinates']
  assert sorted(map(tuple, ring[1:])) == [(1, 1), (1, 4), (5, 1), (5, 4)]
  outer, hole = around['geometry']['coordinates']
  assert sorted(map(tuple, outer[1:])) == [(0, 0), (0, 5), (6, 0), (6, 5)]
  assert sorted(map(tuple, hole[1:])) == [(1, 1), (1, 4), (5, 1), (5, 4)]
