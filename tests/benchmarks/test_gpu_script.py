"""benchmarks/gpu.sh, tried on CPU with a tiny network."""

import os
import subprocess
import sys

import pytest

TINY = [
  '--config.data.image_size=16',
  '--config.model.base_channels=16',
  '--config.model.channel_mults=(1,)',
  '--config.model.attention_levels=()',
  '--config.sample.num_steps=1',
]
MORE = [
  '--config=quickstart',
  '--config.train.optimizer=adamw',  # muon takes longer to compile
  '--config.train.num_steps=1000000',
  '--config.train.eval_every=1000000',
]


def run(*args, **env):
  return subprocess.run(
    ['benchmarks/gpu.sh', *map(str, args)],
    capture_output=True,
    text=True,
    env=os.environ | env,
  )


def test_it_says_what_it_takes(tmp_path):
  nothing, wrong = run(), run(tmp_path, 'bnech')
  assert (nothing.returncode, wrong.returncode) == (2, 2)
  assert 'TRAIN_SECONDS' in nothing.stderr
  assert wrong.stderr == (
    "error: no piece 'bnech'; choose check, bench, profile, train, table\n"
  )


@pytest.mark.slow
def test_pieces_that_are_done_are_passed_over(tmp_path):
  env = {
    'PYTHON': sys.executable,
    'PLATFORMS': 'cpu',
    'CONFIG': 'quickstart',
    'BATCHES': '2',
    'VARIANTS': 'bfloat16',
    'BENCH_FLAGS': ' '.join(TINY),
    'TRAIN_FLAGS': ' '.join(MORE + TINY),
    'TRAIN_SECONDS': '40',
  }
  first = run(tmp_path, 'check', 'bench', 'table', 'train', **env)
  assert first.returncode == 0, first.stdout + first.stderr
  for name in ('check', '2-bfloat16', 'train'):
    assert f'== {name}\n' in first.stdout
  table = first.stdout.split('batch-dtype')[1].splitlines()
  assert [float(n) > 0 for n in table[1].split()[1:]] == 2 * [True]
  assert 'stopped at step' in first.stdout
  assert (tmp_path / 'weights' / 'model.safetensors').stat().st_size
  again = run(tmp_path, 'check', 'bench', 'table', **env)
  assert again.returncode == 0, again.stdout + again.stderr
  assert '==' not in again.stdout
  assert again.stdout.split('batch-dtype')[1].splitlines() == table[:6]
