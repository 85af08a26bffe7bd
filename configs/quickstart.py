"""Procedural scenes at 32 px: trains in minutes on two CPU cores, no files."""

from bitseg_jax.configs import base


def get_config():
  """Returns the config."""
  config = base.get_config()
  config.data.source = 'procedural'
  config.data.image_size = 32
  config.data.augment = 'flip'
  config.data.max_entities = 5
  config.data.num_threads = 1  # more do not draw scenes faster
  config.codes.num_codes = 16
  # Short runs learn most with this loss weight (docs/results.md).
  config.diffusion.loss_weight = 'uniform'
  config.diffusion.decoupled = False
  config.model.base_channels = 32
  config.model.channel_mults = (1, 2, 2)
  config.model.num_res_blocks = 1
  config.model.attention_levels = (2,)
  config.model.num_heads = 1
  config.train.batch_size = 8
  config.train.num_steps = 1_200
  config.train.optimizer = 'muon'  # 1,200 steps are few
  config.train.learning_rate = 1.2e-3
  config.train.warmup_steps = 50
  config.train.decay_steps = 700
  config.train.ema_decay = 0.995
  config.train.log_every = 50
  config.train.eval_every = 400
  config.train.checkpoint_every = 200
  config.eval.batch_size = 40
  config.eval.during_training = 40
  return config
