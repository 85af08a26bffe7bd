"""The sizes at which every experiment of the paper can be run."""

from bitseg_jax.configs import base, bsds500, main, quickstart


def tiny():
  """Procedural scenes at 32 px in patches of 4: two minutes on one CPU core.

  It is small enough for many seeds and shows which settings are better, but not
  the paper's scores.
  """
  config = quickstart.get_config()
  config.diffusion = base.get_config().diffusion  # the paper's
  config.model.base_channels = 64
  config.model.channel_mults = (1, 1)
  config.model.attention_levels = (1,)
  config.model.patch_size = 4
  config.train.batch_size = 32
  config.train.optimizer = 'adamw'  # the paper's, too
  config.train.num_steps = 400
  config.train.learning_rate = 1.5e-3
  config.train.decay_steps = 250
  config.eval.weights = ('ema',)
  config.eval.during_training = 0
  config.eval.gallery_images = 4
  return config


def tiny_long():
  """Like tiny, but trained six times as long: ten minutes on one CPU core."""
  config = tiny()
  config.train.num_steps = 2_400
  config.train.decay_steps = 1_500
  return config


SIZES = {
  'tiny': tiny,
  'tiny_long': tiny_long,
  'bsds': bsds500.get_config,  # the paper's model on BSDS500
  'paper': main.get_config,  # and on EntitySeg
}
