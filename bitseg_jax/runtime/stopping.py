"""When to stop and when to save, at a step that all processes agree on."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


@contextlib.contextmanager
def stop_signal(manager: Any) -> Iterator[Callable[[int], bool]]:
  """Gives stop_asked(step): whether SIGTERM or Ctrl-C has come.

  With several processes all must stop at the same step: orbax agrees on it.
  """
  if jax.process_count() > 1:
    yield manager.reached_preemption
    return
  asked, names = [], (signal.SIGTERM, signal.SIGINT)

  def note(number, frame):
    asked.append(number)
    for name in names:
      signal.signal(name, signal.SIG_DFL)  # a second one ends at once

  before = [signal.signal(name, note) for name in names]
  try:
    yield lambda step: bool(asked)
  finally:
    for name, handler in zip(names, before, strict=True):
      signal.signal(name, handler)


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
