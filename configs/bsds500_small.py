"""BSDS500 at 48 px with the quickstart's model: two CPU cores, under an hour.

Starts from the weights that `make demo` leaves, trained on procedural scenes.
16 codes: regions beyond the 16 largest join their neighbours.
"""

from configs import quickstart


def get_config():
  """Returns the config."""
  config = quickstart.get_config()
  config.init_from = 'runs/quickstart'
  config.data.source = 'tfds'
  config.data.dir = 'datasets/bsds500'
  config.data.image_size = 48
  config.data.augment = 'full'
  config.train.num_steps = 1_600
  config.train.learning_rate = 1e-3
  config.train.warmup_steps = 100
  config.train.decay_steps = 1_100
  config.train.ema_decay = 0.998
  config.train.eval_every = 500
  config.eval.batch_size = 20
  config.eval.num_samples = 3
  config.eval.during_training = 20
  return config
