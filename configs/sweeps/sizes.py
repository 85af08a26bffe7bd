"""The sizes that every experiment of the paper can be run at."""

from configs import bsds500, main, quickstart


def tiny():
  """Procedural scenes at 32 px in patches of 2: a minute or two on two cores.

  Small enough for many seeds; tells orderings, not the paper's figures.
  """
  config = quickstart.get_config()
  config.data.max_entities = 6
  config.model.base_channels = 64
  config.model.num_heads = 2
  config.model.patch_size = 2
  config.train.batch_size = 16
  config.train.num_steps = 600
  config.train.learning_rate = 1e-3
  config.train.decay_steps = 400
  config.train.checkpoint_every = 300
  config.eval.num_samples = 2
  config.eval.during_training = 0
  config.eval.gallery_images = 4
  return config


def bsds():
  """The paper's model on BSDS500, as configs/bsds500.py."""
  return bsds500.get_config()


def paper():
  """The paper's model on EntitySeg, as configs/main.py."""
  return main.get_config()


SIZES = {'tiny': tiny, 'bsds': bsds, 'paper': paper}
