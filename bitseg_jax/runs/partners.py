"""The other processes of a run: meeting them, and noticing that one is lost.

JAX alone aborts with a C++ stack, a minute or five after a partner was lost or
never came, or hangs in a collective. Here every process leaves a stamp in JAX's
key-value store every few seconds and looks at those of the others; whoever sees
one stand still names it in one line and ends.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from typing import NoReturn

import jax
from jax._src import distributed  # the key-value store has no public name

from bitseg_jax import interrupts

_PERIOD = 2.0  # seconds between stamps
_SILENT = 30.0  # seconds without a new stamp after which a process is lost
_SUSPECT = 10.0  # the same, once a collective has failed

_KEY = 'bitseg_alive'
_helpers: list[subprocess.Popen] = []
_seen: dict[int, float] = {}  # by process, when its last stamp was new


def join(
  coordinator: str | None,
  num_processes: int | None,
  process_id: int | None,
  patience: float = 50.0,
) -> None:
  """Meets the other processes, and watches them from then on.

  Args:
    coordinator: host:port of process 0; None asks the cluster JAX runs in.
    num_processes: how many there are; None likewise.
    process_id: number of this one; None likewise.
    patience: seconds to wait for the others; after them the program ends in
      one line.

  Raises:
    ValueError: in one line, if the processes cannot meet there.
  """
  if coordinator:
    _check_address(coordinator, process_id)
  where = coordinator or 'the address that the cluster gives'
  late = threading.Timer(
    patience,
    _end,
    [
      f'process {process_id or 0} waited {patience:.0f} s at {where} for the '
      'other processes; start all of them, and check --coordinator, '
      '--num_processes and --process_id'
    ],
  )
  late.daemon = True
  late.start()
  try:
    # JAX's own limit comes later: it would abort with a stack.
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      initialization_timeout=int(patience) + 60,
    )
  except (RuntimeError, LookupError, ValueError) as error:
    late.cancel()
    reason = ' '.join(str(error).split())[:300] or type(error).__name__
    raise ValueError(
      f'the processes could not meet at {where}: {reason}'
    ) from error
  jax.devices()  # the processes meet once more when the devices are opened
  late.cancel()
  if jax.process_count() > 1:
    _seen.update(dict.fromkeys(range(jax.process_count()), time.monotonic()))
    _have_last_word(process_id or jax.process_index())
    for task in (_exchange, _watch):
      threading.Thread(target=task, daemon=True).start()


def _check_address(coordinator, process_id):
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise ValueError(
      f'--coordinator={coordinator}: give host:port of process 0, such as '
      'localhost:1234'
    )
  if process_id == 0:  # which listens there; JAX would crash if it cannot
    with socket.socket() as listener:
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      try:
        listener.bind(('', int(port)))
      except OSError as error:
        raise ValueError(
          f'--coordinator={coordinator}: {error.strerror.lower()}; give '
          'another port'
        ) from error


def leave(error: BaseException) -> NoReturn:
  """Ends this process of several after an error, naming a lost partner.

  A normal exit would wait for the others, who wait for this one.

  Args:
    error: what ended the run here; in a collective, perhaps a partner's loss.
  """
  # Libraries have no common type for it, but user errors come from Python.
  if isinstance(error, jax.errors.JaxRuntimeError) or 'Gloo' in str(error):
    began = time.monotonic()
    while time.monotonic() - began < 2 * _SUSPECT:
      for process in _silent_for(_SUSPECT):
        _end(_lost(process))
      time.sleep(_PERIOD / 4)
  _end(' '.join(str(error).split())[:500] or type(error).__name__)


# Reads until this process ends; where nothing was said before, it says why.
_LAST_WORD = """
import sys
if not sys.stdin.buffer.read():
  print(sys.argv[1], file=sys.stderr, flush=True)
"""


def _have_last_word(me):
  """Lets a helper end the output in one line where JAX aborts this process.

  It does so, with a C++ stack, as soon as process 0 is lost; nothing in this
  process runs any more then.
  """
  reason = _lost(0) if me else 'process 0 was killed'
  helper = subprocess.Popen(
    [sys.executable, '-S', '-c', _LAST_WORD, f'\nerror: {reason}'],
    stdin=subprocess.PIPE,
    start_new_session=True,  # Ctrl-C is not for it
  )
  _helpers.append(helper)
  atexit.register(_say_nothing)
  interrupts.at_end(_say_nothing)


def _say_nothing():
  for helper in _helpers:
    with contextlib.suppress(OSError):
      helper.stdin.write(b'.')
      helper.stdin.close()


def _exchange():
  """Stamps, and notes when the stamps of the others were new, for ever.

  The store lives in process 0: with it, every call fails or never returns.
  """
  client, me = distributed.global_state.client, jax.process_index()
  stamps, beat = {}, 0
  while True:
    beat += 1
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      client.key_value_set(f'{_KEY}/{me}', str(beat), allow_overwrite=True)
      found = dict(client.key_value_dir_get(f'{_KEY}/'))
      _seen[0] = time.monotonic()
      for key in found.keys() - {f'{_KEY}/0'}:
        if found[key] != stamps.get(key):
          _seen[int(key.rpartition('/')[2])] = time.monotonic()
      stamps = found
    time.sleep(_PERIOD)


def _watch():
  """Ends this process once another has been silent for too long."""
  while True:
    time.sleep(_PERIOD)
    for process in _silent_for(_SILENT):
      _end(_lost(process))


def _silent_for(seconds):
  now = time.monotonic()
  return sorted(i for i, seen in _seen.items() if now - seen > seconds)


def _lost(process):
  return (
    f'process {process} of {jax.process_count()} is lost; start all of them '
    'again, and the run goes on from its last checkpoint'
  )


def _end(reason) -> NoReturn:
  print(f'\nerror: {reason}', file=sys.stderr, flush=True)
  sys.stdout.flush()
  _say_nothing()
  os._exit(1)
