"""When to stop and when to save, at a step that all processes agree on."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from bitseg_jax import interrupts


@contextlib.contextmanager
def stop_signal(
  reached_preemption: Callable[[int], bool],
) -> Iterator[Callable[[int], bool]]:
  """Gives stop_asked(step): whether SIGTERM or Ctrl-C has come.

  Before it is first called, nothing is there to be saved, and signals do what
  they did. So do a second one, and, once the block is left, one that stop_asked
  has not told. Several at once are one, see interrupts.AT_ONCE.

  Args:
    reached_preemption: orbax's, by which several processes agree on a step. It
      is asked of every step up to the one that stop_asked is told, since they
      agree on the step after the last that any has asked of.
  """
  several = jax.process_count() > 1
  # Several processes: JAX hears SIGTERM and tells all, so Ctrl-C becomes one.
  noted = [signal.SIGINT] if several else [signal.SIGTERM, signal.SIGINT]
  asked, told, before, last = [], False, {}, 0  # asked: (signal, when)

  def note(number, frame):
    if not asked:
      asked.append((number, time.monotonic()))
      if several:
        signal.raise_signal(signal.SIGTERM)
    elif time.monotonic() - asked[0][1] >= interrupts.AT_ONCE:
      restore()
      signal.raise_signal(number)

  def restore():
    while before:
      signal.signal(*before.popitem())

  def stop_asked(step):
    nonlocal last, told
    if not before and not asked:
      for name in noted:
        if signal.getsignal(name) is not signal.SIG_IGN:  # as nohup asks
          before[name] = signal.signal(name, note)
    stop = bool(asked)
    if several:
      # A list, for every one of them must be asked of.
      stop = any([reached_preemption(n) for n in range(last + 1, step + 1)])
      last = step
    told = told or stop
    return stop

  try:
    yield stop_asked
  finally:
    restore()
  if asked and not told:
    signal.raise_signal(asked[0][0])


class SaveClock:
  """Tells when a run was not saved for so long that it should be."""

  def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic):
    """Starts the clock; it never rings if minutes is 0."""
    self._seconds, self._now = 60 * minutes, now
    self.restart()

  def restart(self) -> None:
    """Counts from now on."""
    self._began = self._now()

  def rings(self) -> bool:
    """Whether the time is up on process 0; all must ask at the same steps."""
    if not self._seconds:
      return False
    up = np.array(self._now() - self._began >= self._seconds)
    if jax.process_count() > 1:
      up = multihost_utils.broadcast_one_to_all(up)
    return bool(up)
