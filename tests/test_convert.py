"""`bitseg convert`, as a command: there and back, and one line if it fails."""

import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from bitseg_jax import cli, convert
from bitseg_jax.configs import base
from bitseg_jax.runs import weights

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


def run(*argv):
  return subprocess.run(
    [sys.executable, '-m', 'bitseg_jax', 'convert', *map(str, argv)],
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp('config') / 'mine.py'
  path.write_text(CONFIG)
  return path


def test_there_and_back(official_model, config, tmp_path):
  tensors, _ = official_model
  source, ours = tmp_path / 'official.safetensors', tmp_path / 'ours'
  safetensors.numpy.save_file(tensors, source)
  done = run(f'--input={source}', f'--output={ours}', f'--config={config}')
  assert done.returncode == 0, done.stderr
  assert '334 tensors' in done.stdout
  back = tmp_path / 'back.safetensors'
  done = run(f'--input={ours}', f'--output={back}', '--to=official')
  assert done.returncode == 0, done.stderr
  read = safetensors.numpy.load_file(back)
  assert read.keys() == tensors.keys()
  for name, tensor in tensors.items():
    assert tensor.tobytes() == read[name].tobytes()


def test_a_run_is_packed(random_run, tmp_path, capsys):
  convert.convert(
    random_run, tmp_path / 'packed', kind='params', card='Zufällig. 🎲'
  )
  assert 'packed: 160,' in capsys.readouterr().out
  packed = weights.read(tmp_path / 'packed')
  raw = weights.read(random_run, 'params')
  np.testing.assert_array_equal(
    packed.params['stem']['kernel'], raw.params['stem']['kernel']
  )
  text = (tmp_path / 'packed' / 'README.md').read_text('utf-8')
  assert 'Zufällig. 🎲' in text


def test_what_cannot_be_is_said_in_one_line(random_run, tmp_path, capsys):
  source, output = tmp_path / 'a.safetensors', tmp_path / 'out'
  safetensors.numpy.save_file({'a': np.zeros(3)}, source)
  main = base.get_config()

  def refuse(message, *args, **options):
    assert cli.call(lambda: convert.convert(*args, **options)) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith('error: ') and message in line
    assert not output.exists()

  refuse('is a file, so a state dict', source, output)
  refuse('must hold one official state dict', source, output, main)
  refuse('and no --to', source, output, main, to='official')
  refuse('nowhere: no such folder', 'nowhere', output)
  refuse('is of an official', random_run, output, main)
  refuse('attention_levels is ()', random_run, source, to='official')
  main.model.encoder = 'lite0'
  refuse("encoder is 'lite0'", source, output, main)
