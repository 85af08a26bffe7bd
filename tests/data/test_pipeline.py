"""Input pipeline: determinism, uniqueness, processes, restoring."""

import contextlib
import multiprocessing
import os
import signal

import numpy as np
import pytest

from bitseg_jax import palette
from bitseg_jax.data import pipeline, transforms
from bitseg_jax.data.procedural import ProceduralScenes

EXAMPLE = pipeline.TrainingExample(
  image_size=16,
  num_codes=16,
  palette=palette.make_palette(16, 'similar'),
  augment='full',
)
SOURCE = ProceduralScenes(12, size=16)


def batches(seed=0, batch_size=8, source=SOURCE, **kwargs):
  return iter(
    pipeline.training_batches(
      [source], EXAMPLE, batch_size, seed, num_threads=2, **kwargs
    )
  )


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def same(a, b):
  return all(
    np.array_equal(x[key], y[key])
    for x, y in zip(a, b, strict=True)
    for key in x
  )


@pytest.mark.parametrize('size', [1, 8])
def test_shapes_and_ranges(size):
  (batch,) = take(batches(batch_size=size), 1)
  assert batch['image'].shape == (size, 16, 16, 3)
  assert batch['image'].dtype == np.uint8
  assert batch['codes'].shape == (size, 16, 16)
  assert batch['codes'].dtype == np.int16
  assert batch['codes'].min() >= -1 and batch['codes'].max() < 16


def test_the_seed_decides():
  assert same(take(batches(3), 4), take(batches(3), 4))
  assert not same(take(batches(3), 4), take(batches(4), 4))
  with pytest.raises(ValueError, match='nothing to train on'):
    batches(source=[])


def test_every_epoch_sees_every_record_and_draws_anew():
  class Numbered:
    def __len__(self):
      return 12

    def __getitem__(self, i):
      image = np.full((16, 16, 3), 20 * i, np.uint8)
      return {'name': '', 'image': image, 'id_maps': [np.eye(16, dtype='i4')]}

  plain = pipeline.TrainingExample(16, 16, EXAMPLE.palette, augment='none')
  stream = iter(pipeline.training_batches([Numbered()], plain, 4, seed=0))
  seen = [b['image'][:, 0, 0, 0] // 20 for b in take(stream, 6)]
  first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
  np.testing.assert_array_equal(np.sort(first), np.arange(12))
  np.testing.assert_array_equal(np.sort(second), np.arange(12))
  assert np.any(first != second)
  images = np.concatenate([b['image'] for b in take(batches(), 30)])
  assert len({image.tobytes() for image in images}) > 0.7 * len(images)


@pytest.mark.parametrize(
  'rows', [[[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1, 4, 5], [2, 3, 6, 7]]]
)
def test_processes_share_the_batches_of_one(rows):
  whole = take(batches(), 3)
  parts = [take(batches(rows=of_process), 3) for of_process in rows]
  for k, batch in enumerate(whole):
    for key in batch:
      for of_process, part in zip(rows, parts, strict=True):
        np.testing.assert_array_equal(part[k][key], batch[key][of_process])


def test_a_stream_may_start_at_any_batch():
  whole = take(batches(), 5)
  assert same(take(batches(start=2), 3), whole[2:])
  mine = take(batches(start=3, rows=[1, 6]), 2)
  for batch, part in zip(whole[3:], mine, strict=True):
    np.testing.assert_array_equal(part['codes'], batch['codes'][[1, 6]])
  take(batches(start=10**9), 1)


def cropped_batches(num_workers=0, seed=5, start=0):
  """Batches of 4 from 12 records of one photo: only the draws differ."""
  example = pipeline.TrainingExample(
    16, 16, EXAMPLE.palette, crop_scale=(0.3, 1.5), crop_aspect=1.3
  )
  source = [ProceduralScenes(1, size=48)[0]] * 12
  stream = pipeline.training_batches(
    [source], example, 4, seed, num_threads=2, start=start
  )
  return contextlib.closing(
    iter(pipeline.read_in_processes(stream, num_workers))
  )


def test_workers_give_the_stream_that_threads_give():
  with cropped_batches() as stream:
    expected = take(stream, 8)
  images = np.concatenate([batch['image'] for batch in expected[:6]])
  assert len({image.tobytes() for image in images}) == 24  # of two epochs
  with cropped_batches(num_workers=2) as stream:
    # Ctrl-C goes to all: the workers leave it to the main process to end.
    seen = take(stream, 2)  # of each worker one: both have started
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
      os.kill(worker.pid, signal.SIGINT)
      os.kill(worker.pid, signal.SIGTERM)
    assert same(seen + take(stream, 6), expected)
  with cropped_batches(num_workers=1, start=4) as stream:  # amid an epoch
    assert same(take(stream, 4), expected[4:])


def marked(value, count):
  """Records whose photo and entity tell their source and number."""
  return [
    {
      'name': '',
      'image': np.full((8, 8, 3), (value, i, 0), np.uint8),
      'id_maps': [np.zeros((8, 8), np.int32)],
    }
    for i in range(count)
  ]


@pytest.mark.parametrize(
  ('weights', 'shares'), [((), (1, 1)), ((1.0, 3.0), (1, 3)), ((2, 1), (2, 1))]
)
def test_mixtures_keep_to_their_weights(weights, shares):
  plain = pipeline.TrainingExample(8, 16, EXAMPLE.palette, augment='none')
  make = lambda **kwargs: iter(
    pipeline.training_batches(
      [marked(1, 10), marked(2, 30)], plain, 12, 0, weights, **kwargs
    )
  )
  batches = take(make(), 10)
  seen = np.concatenate([b['image'][:, 0, 0] for b in batches])
  counts = np.bincount(seen[:, 0], minlength=3)[1:]
  np.testing.assert_array_equal(counts * sum(shares), np.array(shares) * 120)
  first = seen[seen[:, 0] == 1][:, 1]
  for epoch in first[: len(first) // 10 * 10].reshape(-1, 10):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
  assert same(take(make(start=3), 4), batches[3:7])


def test_photos_stored_smaller_than_their_ids_train_alike():
  scene = ProceduralScenes(1, size=64)[0]
  image = scene['image'].reshape(32, 2, 32, 2, 3).mean((1, 3))
  half = {**scene, 'image': image.round().astype(np.uint8)}
  example = pipeline.TrainingExample(
    16, 16, EXAMPLE.palette, 'neighbour', 'flip', (0.5, 1.5), 1.2
  )
  for i in range(20):
    a, b = (
      example.random_map(record, np.random.default_rng(i))
      for record in (scene, half)
    )
    np.testing.assert_array_equal(a['codes'], b['codes'])
    assert np.abs(a['image'].astype(int) - b['image']).mean() < 8


def test_every_annotator_is_drawn():
  id_maps = [np.full((16, 16), -1, 'i4') for _ in range(4)]
  for i in range(4):
    id_maps[i][4 * i : 4 * i + 4] = 0
  image = np.zeros((16, 16, 3), 'u1')
  record = {'name': '', 'image': image, 'id_maps': id_maps}
  example = pipeline.TrainingExample(16, 16, EXAMPLE.palette, augment='none')
  drawn = {
    example.random_map(record, np.random.default_rng(i))['codes'].tobytes()
    for i in range(40)
  }
  assert len(drawn) == 4


def test_evaluation_keeps_all_annotators_and_is_not_random():
  rng = np.random.default_rng(0)
  record = {
    'name': 'a',
    'image': rng.integers(0, 255, (30, 60, 3), np.uint8),
    'id_maps': [rng.integers(0, 9, (30, 60), np.int32) for _ in range(3)],
  }
  first, second = (transforms.evaluation_example(record, 20) for _ in range(2))
  assert same([{'image': first['image']}], [{'image': second['image']}])
  assert first['size'].tolist() == [10, 20] and len(first['id_maps']) == 3
  assert np.all(first['id_maps'][0][10:] == -1)
  assert np.all(first['id_maps'][0][:10] >= 0)
