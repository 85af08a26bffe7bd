"""configs/universal.py for two CPU cores, with the network of bsds500_small."""

from bitseg_jax.configs import bsds500_small, universal


def get_config():
  """Returns the config."""
  config = bsds500_small.get_config()
  config.data.dirs = universal.get_config().data.dirs
  config.data.crop_scale = (0.4, 1.2)
  config.train.num_steps = 4_800
  config.train.decay_steps = 2_400
  config.eval.num_samples = 8
  config.eval.num_images = 60  # of each dataset
  config.eval.during_training = 20
  return config
