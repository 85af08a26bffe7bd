"""Samples of many images: drawn while others are read and used."""

import jax.numpy as jnp
import numpy as np
import pytest

from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import devices

SIDE = 8


@pytest.fixture
def recorded():
  """(events, Functions) of a model whose samples say what they are of."""
  events = []

  def encode(params, image):
    events.append('encode')
    return image[:, 0, 0, 0].astype(np.float32)

  def sample(params, seen, size, labels, seed):
    events.append('sample')
    x_hat = 100 * labels[:, 0] + seen  # its number, and what was encoded
    return x_hat[:, None, None, None] + np.zeros((SIDE, SIDE, 1))

  return events, draw_samples.Functions(encode, sample)


def jobs(counts):
  def read(i):
    image = np.full((SIDE, SIDE, 3), i, np.uint8)
    return {'name': str(i), 'image': image, 'size': np.int32([SIDE, SIDE])}

  images = [lambda i=i: read(i) for i in range(len(counts))]
  return draw_samples.Jobs(images, counts, seed=0)


def test_the_next_batch_is_begun_before_the_last_is_used(recorded):
  events, functions = recorded
  mesh = devices.make_mesh()
  for i, example, x_hat in draw_samples.draw(
    functions, None, jobs([1] * 5), mesh, batch_size=2
  ):
    assert example['name'] == str(i)
    assert (x_hat == i).all()
    events.append(i)
  begun = ['encode', 'encode', 'sample']
  last = ['encode', 'sample']
  assert events == [*begun, *begun, 0, 1, *last, 2, 3, 4]


@pytest.mark.parametrize('batch_size', [1, 3, 4, 50])
def test_each_image_is_encoded_once_for_all_its_samples(recorded, batch_size):
  events, functions = recorded
  counts = [4, 1, 0, 7]
  found = {i: [] for i in range(4)}
  for i, _, x_hat in draw_samples.draw(
    functions, None, jobs(counts), devices.make_mesh(), batch_size
  ):
    found[i] += x_hat[:, 0, 0, 0].tolist()
  assert events.count('encode') == 3
  for i, count in enumerate(counts):
    assert found[i] == [100 * n + i for n in range(count)]


def test_samples_that_are_no_numbers_are_refused(recorded):
  _, functions = recorded
  bad = functions._replace(
    sample=lambda params, seen, *_: jnp.full((len(seen), 1, 1, 1), jnp.nan)
  )
  with pytest.raises(ValueError, match='not finite'):
    list(draw_samples.draw(bad, None, jobs([1]), devices.make_mesh(), 1))
