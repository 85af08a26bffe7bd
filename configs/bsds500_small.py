"""BSDS500 at 64 px with a model that two CPU cores train in about an hour."""

from configs import base


def get_config():
  """Returns the config."""
  config = base.get_config()
  config.data.dir = 'datasets/bsds500'
  config.data.image_size = 64
  config.model.base_channels = 64
  config.model.channel_mults = (1, 1, 2, 2)
  config.model.num_res_blocks = 1
  config.model.attention_levels = (3,)
  config.model.num_heads = 2
  config.train.batch_size = 16
  config.train.num_steps = 5_000
  config.train.learning_rate = 5e-4
  config.train.warmup_steps = 200
  config.train.decay_steps = 2_000
  config.train.ema_decay = 0.999
  config.train.eval_every = 1_000
  config.train.checkpoint_every = 500
  config.eval.during_training = 32
  return config
