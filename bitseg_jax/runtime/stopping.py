"""Stopping a run when it is told to, at a step that all processes agree on."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax


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
