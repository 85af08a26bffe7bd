"""Ctrl-C and SIGTERM end a command in one line, whatever it is doing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from bitseg_jax import interrupts

REST = '; run the same command to resume'
SIGNALS = [
  (signal.SIGINT, 130, f'error: interrupted{REST}'),
  (signal.SIGTERM, 143, f'error: ended by SIGTERM{REST}'),
]

# A command that works in different ways; it says when it does.
PROGRAM = """
import sys, time
from bitseg_jax import cli

how = sys.argv.pop()

def sleep():
  print('working', flush=True)
  time.sleep(60)

def work():
  if how == 'writing':
    from bitseg_jax.runs import log
    with log.whole_file('result.json'):
      sleep()
  if how == 'with workers':
    import multiprocessing
    semaphore = multiprocessing.get_context('spawn').Semaphore()
  if how == 'swallows':
    for _ in range(60):
      try:
        sleep()
      except BaseException:
        pass
  if how == 'callback':
    class Gone:
      def __del__(self):
        sleep()
    Gone()
  sleep()

cli.run(lambda: None, work)
"""


def start(command, folder, **environ):
  """Starts a program, and waits until it says that it is where it should be."""
  path = os.pathsep.join([environ.pop('first', ''), os.getcwd()])
  process = subprocess.Popen(
    [sys.executable, *command],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=folder,
    env={**os.environ, **environ, 'PYTHONPATH': path.strip(os.pathsep)},
  )
  assert process.stdout.readline() == 'working\n'
  return process


def ends_in(process, code, line):
  began = time.monotonic()
  said = process.communicate(timeout=60)[1]
  assert said == line + '\n'
  assert process.returncode == code
  return time.monotonic() - began


@pytest.mark.parametrize(('number', 'code', 'line'), SIGNALS)
@pytest.mark.parametrize('command', ['bitseg_jax.main', 'bitseg_jax'])
def test_amid_the_imports(tmp_path, command, number, code, line):
  (tmp_path / 'jax.py').write_text(
    'import time; print("working", flush=True); time.sleep(60)'
  )
  command = ['-m', command] + ['train'] * (command == 'bitseg_jax')
  process = start(command, tmp_path, first=str(tmp_path))
  process.send_signal(number)
  ends_in(process, code, line)


@pytest.mark.parametrize(
  'how', ['anywhere', 'writing', 'with workers', 'swallows', 'callback']
)
@pytest.mark.parametrize(('number', 'code', 'line'), SIGNALS)
def test_amid_the_work(tmp_path, how, number, code, line):
  """Whatever the code would make of an exception; no part of a file is left."""
  process = start(['-c', PROGRAM, how], tmp_path)
  assert len(list(tmp_path.iterdir())) == (how == 'writing')
  for _ in range(2):  # as the shell's timeout sends it
    process.send_signal(number)
  assert ends_in(process, code, line) < 30
  assert not list(tmp_path.iterdir())


def test_who_imports_the_package_keeps_its_signals():
  program = (
    'import signal, bitseg_jax; from bitseg_jax import cli, interrupts; '
    'print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, '
    'signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)'
  )
  said = subprocess.check_output([sys.executable, '-c', program], text=True)
  assert said == 'True True\n'


@pytest.mark.parametrize('of', ['a command', 'another program'])
def test_a_worker_leaves_ctrl_c_to_its_command(of):
  """It would print where it was when it got the signal, which goes to all."""
  program = (
    'import multiprocessing, signal; from bitseg_jax import interrupts; '
    + 'interrupts.install(); ' * (of == 'a command')
    + 'pool = multiprocessing.get_context("spawn").Pool('
    '1, initializer=interrupts.is_worker); '
    'print(pool.apply(signal.getsignal, [signal.SIGINT]) == signal.SIG_IGN); '
    'pool.terminate()'
  )
  environ = {k: v for k, v in os.environ.items() if k != interrupts._COMMAND}
  said = subprocess.check_output(
    [sys.executable, '-c', program], text=True, env=environ
  )
  assert said == f'{of == "a command"}\n'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_after_all_is_done_it_has_succeeded(number):
  """Python still has to end, which takes a moment with jax in it."""
  program = (
    'import atexit, os; from bitseg_jax import cli; '
    f'atexit.register(lambda: os.kill(os.getpid(), {int(number)})); '
    'cli.run(lambda: None, lambda: None)'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True
  )
  assert (done.returncode, done.stderr) == (0, '')
