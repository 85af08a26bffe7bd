"""Fine-tunes the model that comes with the package on a dataset of one's own.

A few dozen photos will do, and so will two CPU cores, for some minutes:

  bitseg prepare --dataset=folder --source=DIR --output=datasets/mine
  bitseg train --config=finetune --workdir=runs/mine \\
    --config.data.dir=datasets/mine
"""

from bitseg_jax.configs import photos


def get_config():
  """Returns the config."""
  config = photos.get_config()
  config.model.encoder_rate = 0.0  # it stays as it is
  config.data.crop_scale = (0.3, 1.2)
  config.data.crop_aspect = 1.2
  config.init_from = 'photos'
  config.data.dir = 'datasets/mine'
  config.data.dirs = ()
  config.data.weights = ()
  config.train.num_steps = 200
  config.train.learning_rate = 3e-4
  config.train.weight_decay = 0.0
  config.train.warmup_steps = 20
  config.train.decay_steps = 150
  config.train.ema_decay = 0.98
  config.train.log_every = 10
  config.train.eval_every = 100
  config.train.checkpoint_every = 100
  return config
