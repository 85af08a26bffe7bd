"""Odd inputs by the hundred: none may end in a traceback, or pass in silence.

python tests/campaigns/odd_inputs.py [--inputs=500] [--seed=0] [--minutes=60]

Each input is one thing made wrong, in a dataset to prepare, in predictions to
score, in what is known of photos, in settings or in flags. The command gets it
in a process of its own, forked from one that has imported everything. Counted
are

  traceback  a Python traceback is shown
  silent     the exit code is 0, though the command must not take it
  unclear    it fails, and its last line is not 'error: ...'
  endless    it is not done after a minute
"""

import argparse
import collections
import importlib
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

import flips
import odd_cases

from bitseg_jax import cli

LIMIT = 60  # seconds


def run(command: list[str], log: pathlib.Path) -> int | None:
  """The exit code of a command in a forked process; None if it takes long."""

  def work():
    sys.argv = ['bitseg', *command[1:]]
    door = importlib.import_module(f'bitseg_jax.{cli.COMMANDS[command[0]][0]}')
    cli.run(door.define_flags, door.main)

  return run_function(work, log)


def run_function(work: Callable[[], None], log: pathlib.Path) -> int | None:
  """Calls a function in a forked process, as `run` does."""
  pid = os.fork()
  if not pid:
    os.setsid()
    with open(log, 'wb') as file:
      os.dup2(file.fileno(), 1)
      os.dup2(file.fileno(), 2)
    os.chdir(log.parent)
    sys.stdout = open(1, 'w', closefd=False)  # noqa: SIM115
    sys.stderr = open(2, 'w', closefd=False)  # noqa: SIM115
    code = 2
    try:
      work()
      code = 0
    except SystemExit as ended:
      code = ended.code or 0
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)  # what the parent has begun is not for it to end
  end = time.monotonic() + LIMIT
  while time.monotonic() < end:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.005)
  os.killpg(pid, signal.SIGKILL)
  os.waitpid(pid, 0)
  return None


def judge(code: int | None, said: str, must_fail: bool) -> str:
  """What the table counts it as."""
  lines = said.replace('\r', '\n').strip().splitlines() or ['']
  if code is None:
    return 'endless'
  if 'Traceback (most recent call last)' in said or code not in (0, 1):
    return 'traceback'
  if not code:
    return 'silent' if must_fail else 'taken'
  # Of several photos, one that cannot be read is told, and the others done.
  told = lines[-1].startswith('error: ') or any(
    line.startswith('skipped: ') for line in lines
  )
  return 'refused' if told else 'unclear'


def main() -> int:
  """Prints what went wrong, and a table; the exit code is 1 if anything did."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--inputs', type=int, default=500)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--minutes', type=float, default=60)
  parser.add_argument('--verbose', action='store_true')
  asked = parser.parse_args()
  rng = random.Random(asked.seed)
  for module, _ in cli.COMMANDS.values():
    importlib.import_module(f'bitseg_jax.{module}')
  table: dict[str, collections.Counter] = {}
  with tempfile.TemporaryDirectory() as scratch:
    top = pathlib.Path(scratch)
    odd_cases.make_folder(top / 'good')
    prepare = ['prepare', '--dataset=folder', f'--source={top}/good']
    assert run([*prepare, f'--output={top}/prepared'], top / 'log') == 0
    made = run_function(lambda: flips.make(top / 'model'), top / 'log')
    assert made == 0, (top / 'log').read_text()
    model, data = top / 'model/pretrained', top / 'prepared'
    makers = {
      'datasets': odd_cases.odd_dataset,
      'JSON': odd_cases.odd_json,
      'predictions': lambda r, g: odd_cases.odd_prediction(r, g, data),
      'marks': lambda r, g: odd_cases.odd_mark(r, g, model),
      'labels given': lambda r, g: odd_cases.odd_given(r, g, model),
      'settings': odd_cases.odd_setting,
      'flags': odd_cases.odd_flag,
    }
    end = time.monotonic() + 60 * asked.minutes
    for i in range(asked.inputs):
      if time.monotonic() > end:
        break
      name = list(makers)[i % len(makers)]
      root = top / 'case'
      root.mkdir()
      what, command, must_fail = makers[name](root, rng)
      code = run(command, root / 'log')
      said = (root / 'log').read_text(errors='replace')
      found = judge(code, said, must_fail)
      table.setdefault(name, collections.Counter())[found] += 1
      if asked.verbose or found not in ('refused', 'taken'):
        print(f'{found}: {what}\n  {" ".join(command)}\n  {said[-300:]}')
      shutil.rmtree(root)
  return show(table)


def show(table: dict[str, collections.Counter]) -> int:
  """Prints the table; returns whether anything is wrong in it."""
  columns = 'refused', 'taken', 'traceback', 'silent', 'unclear', 'endless'
  print(f'{"":<12}' + ''.join(f'{c:>11}' for c in columns))
  for name, row in table.items():
    print(f'{name:<12}' + ''.join(f'{row[c]:>11}' for c in columns))
  return int(any(row[c] for row in table.values() for c in columns[2:]))


if __name__ == '__main__':
  sys.exit(main())
