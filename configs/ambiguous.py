"""Scenes whose annotators disagree by known probabilities, 32 px, no files.

It trains in half an hour on two CPU cores; examples/known_truth.py then
compares what the model draws with what is true.
"""

from bitseg_jax.configs import quickstart


def get_config():
  """Returns the config."""
  config = quickstart.get_config()
  config.data.source = 'ambiguous'
  config.data.augment = 'none'
  config.model.patch_size = 2
  config.model.attention_levels = (1, 2)
  config.train.batch_size = 32
  config.train.optimizer = 'adamw'  # docs/results.md was made with it
  config.train.num_steps = 2_000
  config.train.learning_rate = 1.5e-3
  config.train.decay_steps = 1_000
  config.train.eval_every = 1_000
  config.sample.guidance_weight = 0.0  # it would sharpen the probabilities
  return config
