"""Ctrl-C and SIGTERM end a command in one line, with exit code 130 or 143.

The handler itself ends the program, for an exception could come amid an import
or a callback, which would swallow it. Nothing needs to be put in order first:
whatever is written has to survive a kill.
"""

import contextlib
import os
import signal
import sys

_COMMAND = 'BITSEG_COMMAND'  # set for the workers that a command starts
_SAID = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'ended by SIGTERM'}
at_end = []  # functions to be called before a signal ends the program


def install() -> None:
  """Takes both signals over; what the caller ignores, as nohup, stays so."""
  # The helper of multiprocessing would tell, after our line, what it removes.
  os.environ.setdefault('PYTHONWARNINGS', 'ignore:resource_tracker')
  os.environ[_COMMAND] = '1'
  owner = os.getpid()

  def end(number, frame):
    if os.getpid() != owner:  # a forked worker ends as any other program
      signal.signal(number, signal.SIG_DFL)
      signal.raise_signal(number)
    ignore()  # the shell's `timeout` sends SIGTERM twice
    for function in at_end:
      function()
    with contextlib.suppress(Exception):
      sys.stdout.flush()
    bars = getattr(sys.modules.get('tqdm'), 'tqdm', None)
    below = '\n' * bool(getattr(bars, '_instances', ()))
    line = f'{below}error: {_SAID[number]}; run the same command to resume\n'
    with contextlib.suppress(OSError):
      os.write(2, line.encode())
    os._exit(128 + number)

  for number in _SAID:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, end)


def ignore(*numbers: int) -> None:
  """Ignores signals, or both: Python, when it ends, calls no more handlers."""
  for number in numbers or _SAID:
    signal.signal(number, signal.SIG_IGN)


def is_worker() -> bool:
  """Whether a command of the package has spawned this process."""
  return _COMMAND in os.environ and '--multiprocessing-fork' in sys.orig_argv


def is_command() -> bool:
  """Whether this program is a command of the package, and no worker of it."""
  words = sys.orig_argv[1:]
  module = words[words.index('-m') + 1 :][:1] if '-m' in words else ['']
  script = os.path.basename(words[0]) if words else ''
  return script == 'bitseg' or module[0].split('.')[0] == __package__
