"""Schedules and loss weights: golden values, slopes, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitseg_jax.schedule import LOSS_WEIGHTS, SCHEDULES, Schedule, loss_weight

T = np.linspace(0.02, 0.98, 49, dtype=np.float32)


def names(golden, prefix, suffix=''):
  found = [n for n in golden if n.startswith(prefix) and n.endswith(suffix)]
  assert found
  return found


def test_golden_schedules(golden):
  t = golden['schedule/t']
  checked = names(golden, 'schedule/', '/gamma')
  for name in checked:
    _, kind, scale, _ = name.split('/')
    schedule = Schedule(kind, float(scale.removeprefix('b=')))
    alpha2 = golden[name]
    np.testing.assert_allclose(
      schedule.alpha(t), np.sqrt(alpha2), atol=2e-5, err_msg=name
    )
    np.testing.assert_allclose(
      schedule.sigma(t), np.sqrt(1 - alpha2), atol=2e-5, err_msg=name
    )
  assert len(checked) == 12


def test_golden_weights(golden):
  t = golden['weights/t']
  # Nearer the ends clipping and the official affine map differ.
  inside = (t >= 0.01) & (t <= 0.99)
  checked = names(golden, 'weights/', ('=True', '=False'))
  for name in checked:
    _, kind, decoupled = name.split('/')
    kind, _, bias = kind.partition('_') if 'sigmoid' in name else (kind, 0, 0)
    weight = loss_weight(
      Schedule('cosine', 0.1), t, kind, float(bias), decoupled.endswith('True')
    )
    rtol = np.where(inside, 1e-2, 0.15)
    assert np.all(
      np.abs(weight - golden[name]) <= rtol * np.abs(golden[name]) + 1e-4
    ), name
  assert len(checked) == 16


@pytest.mark.parametrize('kind', SCHEDULES)
@pytest.mark.parametrize('scale', [0.1, 1.0])
def test_slope_is_the_derivative(kind, scale):
  schedule = Schedule(kind, scale)
  slope = jax.vmap(jax.grad(schedule.logsnr))(T)
  np.testing.assert_allclose(schedule.dlogsnr_dt(T), slope, rtol=1e-4)


@pytest.mark.parametrize('kind', SCHEDULES)
def test_ends_are_finite_and_within_the_limits(kind):
  schedule = Schedule(kind)
  ends = jnp.array([0.0, 1.0])
  np.testing.assert_allclose(schedule.logsnr(ends), [20, -20])
  assert np.all(np.diff(schedule.logsnr(T)) < 0)
  for weight in LOSS_WEIGHTS:
    assert np.all(np.isfinite(loss_weight(schedule, ends, weight)))


def test_variance_is_preserved():
  schedule = Schedule()
  np.testing.assert_allclose(
    schedule.alpha(T) ** 2 + schedule.sigma(T) ** 2, 1, rtol=1e-6
  )


@pytest.mark.parametrize('kind', ['cosine', 'linear_simple'])
def test_input_scale_shifts_logsnr(kind):
  shift = Schedule(kind, 0.1).logsnr(T) - Schedule(kind, 1.0).logsnr(T)
  np.testing.assert_allclose(shift, 2 * np.log(0.1), rtol=1e-5)


def test_unknown_names_are_refused():
  with pytest.raises(ValueError, match='unknown schedule'):
    Schedule('cosin')
  with pytest.raises(ValueError, match='unknown loss weight'):
    loss_weight(Schedule(), T, 'snr')
  with pytest.raises(ValueError, match='must be over 0'):
    Schedule(input_scale=0.0)


@pytest.mark.parametrize('kind', SCHEDULES)
def test_times_rounded_out_of_their_range_are_its_ends(kind):
  schedule = Schedule(kind)
  out = jnp.array([-1e-7, 1 + 1.2e-7], jnp.float32)
  ends = jnp.array([0.0, 1.0])
  np.testing.assert_array_equal(schedule.logsnr(out), schedule.logsnr(ends))
