"""Distils the model that comes with the package: 4 evaluations, not 8.

It learns in one branch what the teacher's guidance computes from two, at the
times of 4 steps. It wants the datasets of configs/universal_small.py and takes
15 minutes of two shared CPU cores. A student can be distilled again, into half
its steps: --config.distill.teacher=WORKDIR --config.sample.num_steps=2.
"""

from bitseg_jax.configs import universal_small


def get_config():
  """Returns the config."""
  config = universal_small.get_config()
  config.data.crop_scale = (0.3, 1.2)  # as the teacher
  config.distill.teacher = 'photos'
  config.sample.num_steps = 4
  config.sample.guidance_weight = 0.0
  config.train.batch_size = 32
  config.train.num_steps = 200
  config.train.learning_rate = 3e-4
  config.train.warmup_steps = 20
  config.train.decay_steps = 180
  config.train.ema_decay = 0.99
  config.train.log_every = 10
  config.train.eval_every = 200
  config.train.checkpoint_every = 50
  return config
