"""Distils the model that comes with the package: 4 evaluations, not 16.

It wants the datasets of configs/universal_small.py and takes 20 minutes of two
CPU cores. For 2 and then 1 evaluations give it the student before, such as
--config.distill.teacher=WORKDIR --config.sample.num_steps=2.
"""

from bitseg_jax.configs import universal_small


def get_config():
  """Returns the config."""
  config = universal_small.get_config()
  config.distill.teacher = 'photos'
  config.sample.num_steps = 4
  config.sample.guidance_weight = 0.0
  config.train.batch_size = 32
  config.train.num_steps = 1_000
  config.train.learning_rate = 3e-4
  config.train.warmup_steps = 20
  config.train.decay_steps = 900
  config.train.ema_decay = 0.99
  config.train.log_every = 20
  config.train.eval_every = 500
  config.train.checkpoint_every = 200
  return config
