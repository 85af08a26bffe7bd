"""Commands: found by name, and every wrong call ends in one line."""

import subprocess
import sys

import pytest

from bitseg_jax import cli


def bitseg(*argv):
  return subprocess.run(
    [sys.executable, '-m', 'bitseg_jax', *argv],
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_the_commands_are_listed():
  listed = bitseg().stdout
  for command in cli.COMMANDS:
    assert f'\n  {command} ' in listed


@pytest.mark.parametrize('command', ['train', 'score'])
def test_help_names_the_flags_of_a_command(command):
  done = bitseg(command, '--help')
  assert done.returncode == 0 and not done.stderr
  flag = {'train': '--workdir', 'score': '--predictions'}[command]
  assert flag in done.stdout


@pytest.mark.parametrize(
  ('argv', 'line'),
  [
    (['trian'], 'trian is no command; choose one of train'),
    (['score', '--daat=x'], 'daat'),
    (
      ['score', '--data=x', '--split=val', '--predictions=p', 'more'],
      'more is',
    ),
    (['train', '--config=nowhere'], 'no such file; the configs in the'),
    (
      ['train', '--config=quickstart', '--config.train.batchsize=3'],
      '--config.train.batchsize=3: there is no such setting',
    ),
    (
      ['train', '--config=quickstart', '--config.train.batch_size=eight'],
      'batch_size',
    ),
    (['train', '--config=quickstart'], '--workdir is missing'),
    (['sweep', '--sweep='], '--sweep is empty'),
  ],
)
def test_a_wrong_call_ends_in_one_line(argv, line):
  done = bitseg(*argv)
  assert done.returncode == 1
  (said,) = done.stderr.strip().splitlines()
  assert said.startswith('error: ') and line in said


def test_a_config_that_is_none_is_named(tmp_path):
  config = tmp_path / 'mine.py'
  config.write_text("def get_config():\n  return {'seed': 0}\n")
  done = bitseg('train', f'--config={config}', f'--workdir={tmp_path}')
  assert done.returncode == 1
  (said,) = done.stderr.strip().splitlines()
  assert 'must return a ConfigDict' in said
