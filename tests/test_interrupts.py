"""Ctrl-C and SIGTERM end a command in one line, whatever it is doing."""

import os
import signal
import subprocess
import sys
import time

import pytest

REST = '; run the same command to resume'
SIGNALS = [
  (signal.SIGINT, 130, f'error: interrupted{REST}'),
  (signal.SIGTERM, 143, f'error: ended by SIGTERM{REST}'),
]

# A command that works in different ways; it says when it does.
PROGRAM = """
import sys, time
from bitseg_jax import cli, interrupts

interrupts._GRACE = float(sys.argv.pop())
how = sys.argv.pop()

def sleep():
  print('working', flush=True)
  time.sleep(60)

def work():
  if how == 'anywhere':
    sleep()
  if how == 'writing':
    from bitseg_jax.runs import log
    with log.whole_file('result.json'):
      sleep()
  if how == 'with workers':
    import multiprocessing
    semaphore = multiprocessing.get_context('spawn').Semaphore()
    sleep()
  if how == 'forked':
    import os
    if not os.fork():
      sleep()
    os.wait()
  with interrupts.raised():
    work_that_takes_it()

def work_that_takes_it():
  if how == 'swallows':
    for _ in range(60):
      try:
        sleep()
      except BaseException:
        pass
  if how == 'translates':
    try:
      sleep()
    except BaseException as error:
      raise RuntimeError('a library: ' + repr(error))
  if how == 'leaves order':
    try:
      sleep()
    finally:
      time.sleep(0.3)
      open('in_order', 'w').close()
  if how == 'callback':
    class Gone:
      def __del__(self):
        sleep()
    Gone()
    time.sleep(60)

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


WAYS = ['anywhere', 'with workers', 'swallows', 'translates', 'leaves order']


@pytest.mark.parametrize('how', [*WAYS, 'callback'])
@pytest.mark.parametrize(('number', 'code', 'line'), SIGNALS)
def test_amid_the_work(tmp_path, how, number, code, line):
  """Whatever the code makes of the exception, and if it never gets it."""
  grace = '60' if how in ('translates', 'leaves order') else '1'
  process = start(['-c', PROGRAM, how, grace], tmp_path)
  process.send_signal(number)
  assert ends_in(process, code, line) < 30
  assert (tmp_path / 'in_order').exists() == (how == 'leaves order')


@pytest.mark.parametrize(
  ('how', 'pause'), [('leaves order', 0.01), ('swallows', 1.5)]
)
def test_two_signals_at_once_are_one_and_a_late_second_waits_for_nothing(
  tmp_path, how, pause
):
  """The shell's timeout sends two at once."""
  process = start(['-c', PROGRAM, how, '60'], tmp_path)
  for _ in range(2):
    process.send_signal(signal.SIGTERM)
    time.sleep(pause)
  assert ends_in(process, 143, SIGNALS[1][2]) < 30
  assert (tmp_path / 'in_order').exists() == (how == 'leaves order')


def test_no_part_of_a_file_is_left(tmp_path):
  process = start(['-c', PROGRAM, 'writing', '1'], tmp_path)
  assert len(list(tmp_path.iterdir())) == 1
  process.send_signal(signal.SIGTERM)
  ends_in(process, 143, SIGNALS[1][2])
  assert not list(tmp_path.iterdir())


def test_who_imports_the_package_keeps_its_signals():
  program = (
    'import signal, bitseg_jax; from bitseg_jax import cli, interrupts; '
    'print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, '
    'signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)'
  )
  said = subprocess.check_output([sys.executable, '-c', program], text=True)
  assert said == 'True True\n'
