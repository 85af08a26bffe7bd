"""One model for photographs, clothing, street scenes and nuclei together.

The prepared datasets/{bsds500,clothing,street,nuclei} are drawn from equally
often (config.data.weights changes that) and evaluated separately. The model is
the paper's, for one large GPU or TPU: bfloat16, 256 images per batch.
"""

from bitseg_jax.configs import bsds500


def get_config():
  """Returns the config."""
  config = bsds500.get_config()
  config.data.dirs = tuple(
    f'datasets/{name}' for name in ('bsds500', 'clothing', 'street', 'nuclei')
  )
  config.data.crop_scale = (0.4, 1.2)
  config.data.crop_aspect = 1.2
  config.train.num_steps = 20_000
  config.train.decay_steps = 7_000
  config.train.ema_decay = 0.9995
  config.train.eval_every = 2_000
  config.eval.during_training = 32  # of each dataset
  return config
