"""Distils the model that comes with the package into half its evaluations.

It learns in one branch what the teacher's guidance computes from two, at the
times of 4 steps. It wants the datasets of configs/photos.py. A student can be
distilled again, into half its steps: --config.distill.teacher=WORKDIR
--config.sample.num_steps=2.
"""

from bitseg_jax.configs import photos


def get_config():
  """Returns the config."""
  config = photos.get_config()
  config.model.encoder_rate = 0.0  # it stays as it is
  config.distill.teacher = 'photos'
  config.sample.num_steps = 4
  config.sample.guidance_weight = 0.0
  config.train.num_steps = 400
  config.train.learning_rate = 3e-4
  config.train.warmup_steps = 20
  config.train.decay_steps = 380
  config.train.ema_decay = 0.99
  config.train.log_every = 10
  config.train.eval_every = 400
  config.train.checkpoint_every = 50
  return config
