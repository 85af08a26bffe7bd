"""A small model on BSDS500 at 64 px; trains in an hour on two CPU cores.

It works in patches of 4 pixels, with 16 codes: regions beyond the 16 largest
join their neighbours. It is best started from a model trained with
configs/universal_small.py: --config.init_from=WORKDIR.
"""

from bitseg_jax.configs import base


def get_config():
  """Returns the config."""
  config = base.get_config()
  config.data.dir = 'datasets/bsds500'
  config.data.image_size = 64
  config.data.crop_scale = (0.5, 1.0)
  config.data.crop_aspect = 1.2
  config.codes.num_codes = 16
  # Short runs learn most with this loss weight (docs/results.md).
  config.diffusion.loss_weight = 'uniform'
  config.diffusion.decoupled = False
  config.model.base_channels = 64
  config.model.channel_mults = (1, 2, 2)
  config.model.num_res_blocks = 1
  config.model.attention_levels = (1, 2)
  config.model.num_heads = 2
  config.model.patch_size = 4
  config.train.batch_size = 16
  config.train.num_steps = 6_000
  config.train.learning_rate = 7e-4
  config.train.warmup_steps = 200
  config.train.decay_steps = 3_000
  config.train.ema_decay = 0.998
  config.train.log_every = 50
  config.train.eval_every = 1_000
  config.train.checkpoint_every = 250
  config.eval.batch_size = 20
  config.eval.num_samples = 16
  config.eval.during_training = 20
  return config
