"""Ctrl-C and SIGTERM end a command in one line, with exit code 130 or 143.

The handler itself ends the program: an exception could come amid an import or a
callback, which would swallow it. Only work that leaves files in order first,
see `raised`, gets an exception, and a few seconds.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

_SAID = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'ended by SIGTERM'}
_GRACE = 5.0  # seconds in which the work may leave its files in order
AT_ONCE = 1.0  # the shell's `timeout` sends SIGTERM twice: seconds to hear once
_state = SimpleNamespace(raising=False, asked=None, first=0.0, pid=None)
at_end = []  # functions to be called before a signal ends the program


def install() -> None:
  """Takes both signals over; what the caller ignores, as nohup, stays so."""
  _state.pid = os.getpid()
  # The helper of multiprocessing would tell, after our line, what it removes.
  os.environ.setdefault('PYTHONWARNINGS', 'ignore:resource_tracker')
  for number in _SAID:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, _hear)


def is_command() -> bool:
  """Whether this program is a command of the package, and no worker of it."""
  words = sys.orig_argv[1:]
  module = words[words.index('-m') + 1 :][:1] if '-m' in words else ['']
  script = os.path.basename(words[0]) if words else ''
  return script == 'bitseg' or module[0].split('.')[0] == __package__


@contextlib.contextmanager
def raised():
  """Lets a signal raise KeyboardInterrupt, and nothing else, in the block."""
  _state.raising = True
  try:
    yield
  except BaseException as error:
    if _state.asked and not isinstance(error, KeyboardInterrupt):
      raise KeyboardInterrupt from error  # a library has made it its own error
    raise
  finally:
    _state.raising = False


def outcome() -> tuple[str, int]:
  """Returns what to say of the signal that came, and the exit code for it."""
  number = _state.asked or signal.SIGINT
  return f'{_SAID[number]}; run the same command to resume', 128 + number


def _hear(number, frame):
  if os.getpid() != _state.pid:  # a forked worker ends as any other program
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
  elif not _state.asked and _state.raising:
    _state.asked, _state.first = number, time.monotonic()
    timer = threading.Timer(_GRACE, _end)
    timer.daemon = True
    timer.start()
    sys.unraisablehook = lambda error: None  # amid a callback it is lost
    raise KeyboardInterrupt
  elif time.monotonic() - _state.first >= AT_ONCE:
    _state.asked = _state.asked or number
    _end()


def _end():
  for function in at_end:
    function()
  with contextlib.suppress(Exception):
    sys.stdout.flush()
  bar = getattr(sys.modules.get('tqdm'), 'tqdm', None)
  line, code = outcome()
  line = '\n' * bool(getattr(bar, '_instances', ())) + f'error: {line}\n'
  with contextlib.suppress(OSError):
    os.write(2, line.encode())
  os._exit(code)
