"""When a run stops and saves: signals, and minutes."""

import signal
import time
import types

import jax
import pytest

from bitseg_jax.training import stopping


@pytest.fixture
def signals_before():
  """Notes the signals that are left to the handler of before."""
  came, before = [], signal.getsignal(signal.SIGTERM)
  signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
  yield came
  signal.signal(signal.SIGTERM, before)


def test_a_signal_stops_training_once(signals_before):
  with stopping.stop_signal(None) as stop_asked:
    signal.raise_signal(signal.SIGTERM)  # nothing is there to be saved
    assert len(signals_before) == 1
    assert not stop_asked(1)
    for _ in range(3):  # at once, as the shell's timeout sends it
      signal.raise_signal(signal.SIGTERM)
    assert stop_asked(2)
  assert len(signals_before) == 1
  signal.raise_signal(signal.SIGTERM)
  assert len(signals_before) == 2


@pytest.mark.parametrize('second', [True, False])
def test_what_stops_nothing_is_left_to_the_handler_of_before(
  signals_before, monkeypatch, second
):
  """A second signal, and one that comes after the last step."""
  monkeypatch.setattr(stopping, 'AT_ONCE', 0)
  with stopping.stop_signal(None) as stop_asked:
    stop_asked(1)
    signal.raise_signal(signal.SIGTERM)
    assert not signals_before
    if second:
      signal.raise_signal(signal.SIGTERM)
      assert len(signals_before) == 1
      assert stop_asked(2)
  assert len(signals_before) == 1


def test_ctrl_c_is_as_sigterm_to_several_processes(signals_before, monkeypatch):
  """Of which JAX hears SIGTERM alone."""
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  before = signal.getsignal(signal.SIGINT)
  with stopping.stop_signal(lambda step: bool(signals_before)) as stop_asked:
    assert not stop_asked(1)
    signal.raise_signal(signal.SIGINT)
    assert signals_before == [signal.SIGTERM]
    assert stop_asked(2)
  assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize('comes', ['before the first', 'after a save', 'later'])
def test_several_processes_stop_at_their_next_call(monkeypatch, comes):
  """Also of a run that was resumed, whose first step is not 1."""
  # JAX agrees on the step after the last that a process has asked of.
  jax_says = types.SimpleNamespace(asked=0, agreed=None)

  def reached(step):
    jax_says.asked = step
    return step == jax_says.agreed

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with stopping.stop_signal(reached) as stop_asked:
    if comes == 'before the first':
      jax_says.agreed = jax_says.asked + 1
      assert stop_asked(201)
      return
    assert not stop_asked(201)
    assert not stop_asked(202)
    if comes == 'after a save':  # orbax asks, too
      reached(202)
    jax_says.agreed = jax_says.asked + 1
    assert stop_asked(203)


def test_minutes_are_over_once_they_are_and_none_never_are():
  began = time.monotonic() - 120
  assert stopping.is_due(began, 1.9) and not stopping.is_due(began, 2.1)
  assert not stopping.is_due(began, 0)
