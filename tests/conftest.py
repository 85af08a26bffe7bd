"""Settings and fixtures that several test files share."""

import os

import jax
import numpy as np
import pytest

from configs import quickstart


@pytest.fixture(scope='session')
def golden():
  """Values recorded from the official implementation, by name."""
  with np.load('third_party/towardsdiff/golden.npz') as file:
    return {name: file[name] for name in file.files}


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory):
  """Lets tests, and the programs they start, share what they compile."""
  folder = str(tmp_path_factory.mktemp('jax_cache'))
  os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


@pytest.fixture
def tiny_config():
  """A config whose model compiles in seconds: 16 px, two levels."""
  config = quickstart.get_config()
  config.data.image_size = 16
  config.data.num_scenes = 100
  config.data.num_eval_scenes = 8
  config.model.base_channels = 16
  config.model.channel_mults = (1, 2)
  config.model.num_res_blocks = 1
  config.model.attention_levels = (1,)
  config.model.num_heads = 1
  config.train.batch_size = 8
  config.train.num_steps = 6
  config.train.warmup_steps = 1
  config.train.decay_steps = 1
  config.train.checkpoint_every = 2
  config.train.eval_every = 6
  config.train.log_every = 1
  config.eval.batch_size = 8
  config.eval.num_samples = 2
  config.eval.during_training = 0
  return config
