"""Samples of many images: drawn while others are read and used."""

import numpy as np

from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import devices

SIDE = 8


def test_the_next_batch_is_begun_before_the_last_is_used():
  source = [
    {
      'name': str(i),
      'image': np.full((SIDE, SIDE, 3), i, np.uint8),
      'id_maps': [np.zeros((SIDE, SIDE), np.int32)],
    }
    for i in range(6)
  ]
  events = []

  def codes_fn(image, size, keys):
    events.append('begun')
    return image[..., 0].astype(np.int16), (image >= 0).all((1, 2, 3))

  drawn = draw_samples.draw(
    *(codes_fn, None, source, SIDE, devices.make_mesh()),
    batch_size=2,
    num_images=5,
    num_samples=1,
    seed=0,
    description='',
  )
  for i, example, codes in drawn:
    assert example['name'] == str(i)
    assert (codes == i).all()
    events.append(i)
  assert events == ['begun', 'begun', 0, 1, 'begun', 2, 3, 4]
