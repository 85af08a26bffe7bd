"""When to stop and when to save, at a step that all processes agree on."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

AT_ONCE = 1.0  # the shell's `timeout` sends SIGTERM twice: seconds to hear once


@contextlib.contextmanager
def stop_signal(
  reached_preemption: Callable[[int], bool],
) -> Iterator[Callable[[int], bool]]:
  """Gives stop_asked(step): whether SIGTERM or Ctrl-C has come.

  Signals do what they did before until stop_asked is first called, as there is
  nothing to save; and so do a late second one, and one that was never told.
  Several processes agree on a step by orbax's reached_preemption.
  """
  several = jax.process_count() > 1
  # Several processes: JAX hears SIGTERM and tells all, so Ctrl-C becomes one.
  noted = [signal.SIGINT] if several else [signal.SIGTERM, signal.SIGINT]
  came, before, last, told = [], {}, 0, False  # came: (signal, when)

  def note(number, frame):
    came.append((number, time.monotonic()))
    if several and len(came) == 1:
      signal.raise_signal(signal.SIGTERM)
    if len(came) > 1 and came[-1][1] - came[0][1] >= AT_ONCE:
      restore()
      signal.raise_signal(number)

  def restore():
    while before:
      signal.signal(*before.popitem())

  def stop_asked(step):
    nonlocal last, told
    if not before and not came:
      for number in noted:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
          before[number] = signal.signal(number, note)
    stop = bool(came)
    if several:
      # A list, to ask of all: they agree on the one after the last asked of.
      stop = any([reached_preemption(n) for n in range(last + 1, step + 1)])
      last = step
    told = told or stop
    return stop

  try:
    yield stop_asked
  finally:
    restore()
  if came and not told:
    signal.raise_signal(came[0][0])


def is_due(began: float, minutes: float) -> bool:
  """Whether minutes (0: never) are over; process 0 decides for all."""
  due = np.array(time.monotonic() - began >= 60 * minutes)
  return bool(minutes and multihost_utils.broadcast_one_to_all(due))
