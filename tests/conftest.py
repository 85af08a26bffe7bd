"""Settings and fixtures that several test files share."""

import os
import signal

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from PIL import Image

from bitseg_jax.configs import quickstart
from bitseg_jax.models import encoder
from bitseg_jax.runs import build, checkpoint, train_state
from tests import recorded


def pytest_configure():
  """Has XLA optimize nothing, here and in the programs that tests start.

  Compiling takes most of the time, and so 40 % less of it. What XLA_FLAGS says
  about it stays: CI compares the method with recorded values optimized, too.
  """
  # A shell has its background jobs ignore Ctrl-C, and so what they start.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  flags, level = (
    os.environ.get('XLA_FLAGS', ''),
    'xla_backend_optimization_level',
  )
  if level not in flags:
    os.environ['XLA_FLAGS'] = f'{flags} --{level}=0'


@pytest.fixture(scope='session')
def golden():
  """Values recorded from the official implementation, by name."""
  with np.load('third_party/towardsdiff/golden.npz') as file:
    return {name: file[name] for name in file.files}


@pytest.fixture(scope='session')
def official_model():
  """(official state dict, drawn as recorded; config of its network)."""
  return recorded.official_model()


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(pytestconfig):
  """Lets tests, the programs they start and later runs share compilations.

  It lies in pytest's own cache, which `make clean` removes.
  """
  folder = str(pytestconfig.cache.mkdir('compiled'))
  os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


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
  config.train.optimizer = 'adamw'  # muon takes seconds longer to compile
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


@pytest.fixture
def small_trunk(monkeypatch):
  """One narrow block for each stride, which compiles fast."""
  stages = [(1, 3, 2 if i in (1, 2, 3, 5) else 1, 1, 8) for i in range(7)]
  monkeypatch.setattr(encoder, '_STAGES', stages)


@pytest.fixture(scope='session')
def random_run(tmp_path_factory):
  """Steps 1 and 2 of a run whose weights are random throughout."""
  config = ConfigDict(quickstart.get_config().to_dict())
  config.data.image_size = 16
  config.model.base_channels = 32
  config.model.channel_mults = (1,)  # compiles fastest
  config.model.attention_levels = ()
  config.sample.num_steps = 2
  parts = build.build(config)
  # No test machine has devices for it; segmenting must not mind.
  config.train.batch_size = 13

  def weights(seed):
    # The initial ones end in zeros: nothing would come of photo or noise.
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(parts.init_params, jax.random.key(0))
    draw = lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32)
    return jax.tree.map(draw, shapes)

  folder = tmp_path_factory.mktemp('run')
  with checkpoint.open_manager(folder) as manager:
    for step in (1, 2):
      state = train_state.create_state(weights(step), optax.sgd(0.1))
      state = state.replace(ema_params=weights(step + 10))
      manager.save(step, state, config.to_dict())
  return folder


@pytest.fixture(scope='session')
def draw_photo():
  """draw_photo(seed, height, width): coarse random blocks to react to."""

  def draw(seed, height, width):
    colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(colors).resize((width, height), 0))

  return draw
