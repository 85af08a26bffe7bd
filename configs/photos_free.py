"""A model like `photos` from labels that may be used for anything.

It learns from 1,713 photos only: clothes, cell nuclei, facades, and some of
COCO, whose photos stay under the terms of Flickr. The encoder learns as well.
"""

from bitseg_jax.configs import photos

# How often each dataset is drawn from, relative to the others.
WEIGHTS = {
  'coco_panoptic200': 4.0,  # CC BY 4.0
  'clothing': 1.5,  # Apache-2.0
  'coco_instances': 1.0,  # CC BY 4.0
  'facade_cc': 1.0,  # CC BY 4.0
  'nuclei': 1.0,  # CC0
}


def get_config():
  """Returns the config."""
  config = photos.get_config(WEIGHTS)
  config.train.learning_rate = 8e-4
  config.train.num_steps = 1_400
  config.train.decay_steps = 1_000
  config.train.warmup_steps = 100
  config.train.ema_decay = 0.99
  return config
