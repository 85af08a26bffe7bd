"""`bitseg convert`, as a command: there and back, and one line if it fails."""

import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from bitseg_jax.segmenting import weights

CONFIG = """
from bitseg_jax.configs import base


def get_config():
  config = base.get_config()
  config.data.image_size = 32
  config.model.base_channels = 32
  config.model.num_res_blocks = 2
  config.model.channel_mults = (1, 2, 2, 2)
  config.model.attention_levels = (2, 3)
  return config
"""


def convert(*argv):
  return subprocess.run(
    [sys.executable, '-m', 'bitseg_jax', 'convert', *map(str, argv)],
    capture_output=True,
    text=True,
    timeout=300,
  )


def assert_refused(done, message):
  assert done.returncode == 1
  *_, line = done.stderr.strip().splitlines()
  assert line.startswith('error: ') and message in line


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp('config') / 'mine.py'
  path.write_text(CONFIG)
  return path


def test_there_and_back(official_model, config, tmp_path):
  tensors, _ = official_model
  source, ours = tmp_path / 'official.safetensors', tmp_path / 'ours'
  safetensors.numpy.save_file(tensors, source)
  done = convert(f'--input={source}', f'--output={ours}', f'--config={config}')
  assert done.returncode == 0, done.stderr
  assert '334 tensors' in done.stdout
  back = tmp_path / 'back.safetensors'
  done = convert(f'--input={ours}', f'--output={back}', '--to=official')
  assert done.returncode == 0, done.stderr
  read = safetensors.numpy.load_file(back)
  assert read.keys() == tensors.keys()
  for name, tensor in tensors.items():
    assert tensor.tobytes() == read[name].tobytes()


def test_a_run_is_packed(random_run, tmp_path):
  card = tmp_path / 'card.md'
  card.write_text('Random weights.')
  done = convert(
    f'--input={random_run}',
    f'--output={tmp_path / "packed"}',
    f'--card={card}',
    '--kind=params',
  )
  assert done.returncode == 0, done.stderr
  packed = weights.read(tmp_path / 'packed')
  raw = weights.read(random_run, 'params')
  np.testing.assert_array_equal(
    packed.params['stem']['kernel'], raw.params['stem']['kernel']
  )
  assert 'Random weights.' in (tmp_path / 'packed' / 'README.md').read_text()


def test_a_wrong_call_ends_in_one_line(random_run, config, tmp_path):
  source, output = tmp_path / 'a.safetensors', tmp_path / 'out'
  safetensors.numpy.save_file({'a': np.zeros(3)}, source)
  call = lambda *argv: convert(f'--output={output}', *argv)
  assert_refused(call(f'--input={source}'), '--config is missing')
  assert_refused(
    call(f'--input={source}', f'--config={config}'),
    'holds no official state dict',
  )
  assert_refused(call('--input=nowhere'), 'nowhere: no such folder')
  assert_refused(
    call(f'--input={random_run}', '--config=main'), 'are of an official'
  )
  assert_refused(
    convert(f'--input={random_run}', f'--output={source}', '--to=official'),
    'attention_levels is ()',
  )
  assert not output.exists()
