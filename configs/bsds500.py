"""The paper's main model on BSDS500: 200 photos with 4-9 annotators each.

It needs one large GPU or TPU: bfloat16, 256 images per batch.
"""

from bitseg_jax.configs import base


def get_config():
  """Returns the config."""
  config = base.get_config()
  config.data.dir = 'datasets/bsds500'
  config.model.dtype = 'bfloat16'
  config.train.batch_size = 256
  config.train.num_steps = 6_000
  config.train.learning_rate = 4e-4
  config.train.warmup_steps = 300
  config.train.decay_steps = 2_000
  config.train.ema_decay = 0.999
  config.train.eval_every = 1_000
  config.train.checkpoint_every = 500
  config.eval.batch_size = 128
  return config
