"""Procedural scenes: seeded, compact ids, minimum area, grain and pickle."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np
import pytest

from bitseg_jax.data.procedural import MIN_AREA, ProceduralScenes


def same_scene(a, b):
  return (
    a['name'] == b['name']
    and np.array_equal(a['image'], b['image'])
    and np.array_equal(a['id_maps'][0], b['id_maps'][0])
  )


@pytest.mark.parametrize('size', [8, 32, 45, 128])
@pytest.mark.parametrize('max_entities', [2, 6, 12])
def test_entities_are_compact_and_large_enough(size, max_entities):
  scenes = ProceduralScenes(40, size, max_entities, seed=1)
  counts = []
  for scene in (scenes[i] for i in range(len(scenes))):
    (id_map,) = scene['id_maps']
    assert scene['image'].shape == (size, size, 3)
    assert scene['image'].dtype == np.uint8
    assert id_map.shape == (size, size)
    assert id_map.dtype == np.int32
    assert id_map.min() == 0  # Every pixel is labelled: no IGNORE_ID.
    areas = np.bincount(id_map.ravel())
    assert areas.min() >= MIN_AREA * size**2
    counts.append(len(areas))
  assert min(counts) >= 2
  assert max(counts) <= max_entities
  assert len(set(counts)) >= min(max_entities - 1, 4)


def test_scene_depends_on_seed_and_index_alone():
  few, many = ProceduralScenes(5, seed=7), ProceduralScenes(500, seed=7)
  backwards = [many[i] for i in reversed(range(5))][::-1]
  assert all(same_scene(few[i], backwards[i]) for i in range(5))
  other = ProceduralScenes(5, seed=8)
  assert not any(
    np.array_equal(few[i]['image'], other[j]['image'])
    for i in range(5)
    for j in range(5)
  )


def test_no_scene_of_the_training_range_is_in_the_held_out_range():
  scenes = ProceduralScenes(300)
  drawn = [scenes[i] for i in range(300)]
  assert len({s['name'] for s in drawn}) == 300
  train = {s['image'].tobytes() for s in drawn[:200]}
  held_out = {s['image'].tobytes() for s in drawn[200:]}
  assert len(train) == 200
  assert len(held_out) == 100
  assert not train & held_out
  # Two half planes may give equal maps by chance; shapes may not.
  maps = {s['id_maps'][0].tobytes() for s in drawn}
  assert len(maps) > 290


def test_a_scene_looks_alike_at_any_size():
  small, large = ProceduralScenes(30, 32), ProceduralScenes(30, 96)
  agreement, error = [], []
  for i in range(30):
    a, b = small[i], large[i]
    # Odd factor: the middle pixel of each 3 x 3 has the same centre.
    agreement.append((a['id_maps'][0] == b['id_maps'][0][1::3, 1::3]).mean())
    gap = a['image'].astype(int) - b['image'][1::3, 1::3]
    error.append(np.abs(gap).mean())
  # A shape near MIN_AREA may be dropped at one size only.
  assert np.median(agreement) == 1
  assert np.median(error) < 10


def test_entities_can_be_told_apart_by_colour():
  scenes = ProceduralScenes(100)
  gaps = []
  for scene in (scenes[i] for i in range(100)):
    (id_map,), image = scene['id_maps'], scene['image'].astype(float)
    means = np.stack(
      [image[id_map == k].mean(0) for k in range(id_map.max() + 1)]
    )
    gap = np.linalg.norm(means[:, None] - means, axis=-1)
    gaps.append(gap[np.triu_indices(len(means), 1)].min())
  assert np.quantile(gaps, 0.1) > 25


def test_threads_pickle_and_grain_give_the_same_scenes():
  scenes = ProceduralScenes(24, size=16, seed=3)
  expected = list(scenes)  # which ends
  assert len(expected) == 24
  copy = pickle.loads(pickle.dumps(scenes))
  assert len(copy) == 24
  with ThreadPoolExecutor(4) as pool:
    got = list(pool.map(copy.__getitem__, range(24)))
  assert all(same_scene(a, b) for a, b in zip(expected, got, strict=True))
  without_name = lambda s: {'image': s['image'], 'id_map': s['id_maps'][0]}
  dataset = grain.MapDataset.source(scenes).map(without_name).batch(5)
  batch = dataset[1]
  for i in range(5):
    np.testing.assert_array_equal(batch['image'][i], expected[5 + i]['image'])
    np.testing.assert_array_equal(
      batch['id_map'][i], expected[5 + i]['id_maps'][0]
    )


@pytest.mark.parametrize('index', [-1, 4, 100])
def test_index_outside_raises(index):
  with pytest.raises(IndexError, match=f'no scene {index} in .*=4'):
    ProceduralScenes(4)[index]


@pytest.mark.parametrize(('name', 'value'), [('size', 7), ('max_entities', 1)])
def test_bad_argument_is_named(name, value):
  with pytest.raises(ValueError, match=f'{name}={value}.*use'):
    ProceduralScenes(**{'num_scenes': 1, name: value})
