"""Ctrl-C and SIGTERM end a command in one line, whatever it is doing.

Python acts on a signal only when its main thread is back from C code, which a
compilation holds for minutes. It then raises an exception wherever that thread
is: amid an import, or in a callback, which swallows it or aborts the program.
Here a thread hears of the signal and ends the program at once. Only where work
says that it can take the exception is it raised, so that files are left in
order; but whatever comes of it, the program ends a few seconds later.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

_SAID = {
  signal.SIGINT: 'interrupted; the same command goes on',
  signal.SIGTERM: 'ended by SIGTERM; the same command goes on',
}
_GRACE = 5.0  # seconds in which the work may leave its files in order
# Seconds within which several signals are one request: the shell's `timeout`
# sends SIGTERM to its command and to the whole group, so it comes twice.
AT_ONCE = 1.0

# raising: the exception may be raised; asked: the signal, 0 if none came;
# code: the exit code, once it is settled; heard: the pipe is being read.
_state = SimpleNamespace(raising=False, asked=0, code=None, heard=False)
_at_end: list[Callable[[], Any]] = []
_saying = threading.Lock()  # taken by the thread that says why it ends


def install() -> None:
  """Takes Ctrl-C and SIGTERM over; again, if a library has taken them since.

  Signals that the caller of the program ignores, as nohup does, stay ignored.
  """
  if threading.current_thread() is not threading.main_thread():
    return
  for number in _SAID:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, _raise)
  if _state.heard:
    return
  _state.heard = True
  # The helper of multiprocessing would tell, after our line, what it removes.
  given = os.environ.get('PYTHONWARNINGS')
  silent = 'ignore::UserWarning:multiprocessing.resource_tracker'
  os.environ['PYTHONWARNINGS'] = f'{given},{silent}' if given else silent
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  threading.Thread(target=_listen, args=[reader], daemon=True).start()
  os.register_at_fork(after_in_child=_forget)
  sys.unraisablehook = _without_interrupts(sys.unraisablehook)


def is_command() -> bool:
  """Returns whether this program is a command of the package.

  It can be told before anything is imported.
  """
  if os.path.basename(getattr(sys, 'argv', [''])[0]) == 'bitseg':
    return True
  words = sys.orig_argv
  after = words[words.index('-m') + 1 :][:1] if '-m' in words else []
  return bool(after) and after[0].split('.')[0] == __package__


@contextlib.contextmanager
def raised() -> Iterator[None]:
  """Lets a signal raise KeyboardInterrupt, and nothing else, in the block.

  There the main thread must call nothing that an exception may break, such as
  JAX, which calls back from C++.
  """
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
  if _state.asked and not _saying.acquire(blocking=False):
    time.sleep(60)  # another thread is ending the program
  number = _state.asked or signal.SIGINT
  return _SAID[number], 128 + number


def at_end(function: Callable[[], Any]) -> None:
  """Has a function called before a signal ends the program, from any thread."""
  _at_end.append(function)


def settle(code: int) -> None:
  """Settles the exit code; after a signal or an error, the program ends here.

  Python would wait for its threads first, jax for the other processes, and
  libraries would tell, after our line, what they could not close.
  """
  _state.code = code
  if not _state.asked:
    _flush()
  if _state.asked or code == 1:
    _end()


def _raise(number, frame):
  if _state.raising and not _state.asked:
    _state.asked = number
    raise KeyboardInterrupt


def _listen(reader):
  """Hears of the signals; the first one leaves the work its time."""
  first = 0.0
  while True:
    number = os.read(reader, 1)[0]
    if signal.getsignal(number) is not _raise:
      continue  # training, for one, saves and stops by itself
    if first and time.monotonic() - first < AT_ONCE:
      continue
    if first or not _state.raising:
      _end(number)
    first = time.monotonic()
    timer = threading.Timer(_GRACE, _end, [number])
    timer.daemon = True
    timer.start()


def _end(number: int = 0) -> NoReturn:
  code = 128 + number if _state.code is None else _state.code
  # What was printed before stands before; but its reader may have stopped to.
  flush = threading.Thread(target=_flush, daemon=True)
  flush.start()
  flush.join(1)
  if _state.code is None and _saying.acquire(blocking=False):
    # Not through sys.stderr, which the main thread may hold.
    line = f'{_line_break()}error: {_SAID[number]}\n'
    with contextlib.suppress(OSError):
      os.write(2, line.encode())
  elif _state.code is None:
    time.sleep(0.5)  # the main thread is saying it
  for function in _at_end:
    with contextlib.suppress(Exception):
      function()
  os._exit(code)


def _flush():
  for stream in sys.stdout, sys.stderr:
    with contextlib.suppress(Exception):
      stream.flush()


def _line_break():
  """Ends the line of a progress bar, which stands without an end."""
  tqdm = sys.modules.get('tqdm')
  return '\n' if getattr(getattr(tqdm, 'tqdm', None), '_instances', ()) else ''


def _without_interrupts(before):
  """Says nothing where the exception came amid a callback, and was lost."""

  def hook(unraisable):
    if not _state.asked:
      before(unraisable)

  return hook


def _forget():
  """A forked process has neither the thread nor a reason for it."""
  signal.set_wakeup_fd(-1)
  _state.heard = _state.raising = False
  usual = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
  }
  for number, handler in usual.items():
    if signal.getsignal(number) is _raise:
      signal.signal(number, handler)
