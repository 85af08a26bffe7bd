"""BSDS500 at 64 px with a model that two CPU cores train in about an hour."""

from configs import base


def get_config():
  """Returns the config."""
  config = base.get_config()
  config.data.dir = 'datasets/bsds500'
  config.data.image_size = 64
  config.model.base_channels = 32
  config.model.channel_mults = (1, 2, 2, 4)
  config.model.num_res_blocks = 1
  config.model.attention_levels = (3,)
  config.model.num_heads = 2
  config.train.batch_size = 8
  config.train.num_steps = 2_400
  config.train.learning_rate = 1e-3
  config.train.warmup_steps = 100
  config.train.decay_steps = 1_200
  config.train.ema_decay = 0.998
  config.train.log_every = 50
  config.train.eval_every = 600
  config.train.checkpoint_every = 200
  config.eval.batch_size = 20
  config.eval.num_samples = 3
  config.eval.during_training = 20
  return config
