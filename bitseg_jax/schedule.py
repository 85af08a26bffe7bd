"""Noise schedules and loss weights as functions of time (secs. 3.1-3.3).

Everything is expressed in logsnr = log(alpha^2 / sigma^2): near t = 1 a
float32 alpha^2 keeps no digit of 1 - alpha^2, a logsnr keeps them all.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

SCHEDULES = ('cosine', 'linear', 'linear_simple')
LOSS_WEIGHTS = ('sigmoid', 'uniform', 'SNR', 'SNR_plus1', 'SNR_trunc')


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Variance-preserving noise schedule: z_t = alpha(t) x + sigma(t) eps.

  Args:
    kind: 'cosine' (alpha^2 = cos^2(pi t / 2)), 'linear' (alpha^2 falls as
      e^(-10 t^2)) or 'linear_simple' (alpha^2 = 1 - t).
    input_scale: factor b on the data; the signal-to-noise ratio becomes
      b^2 SNR while z_t keeps unit variance (sec. 3.3).
    logsnr_min: lower limit of logsnr.
    logsnr_max: upper limit of logsnr.

  Raises:
    ValueError: if kind is unknown or input_scale is not positive.
  """

  kind: str = 'cosine'
  input_scale: float = 0.1
  logsnr_min: float = -20.0
  logsnr_max: float = 20.0

  def __post_init__(self):
    if self.kind not in SCHEDULES:
      raise ValueError(
        f'unknown schedule {self.kind!r}; choose one of {", ".join(SCHEDULES)}'
      )
    if self.input_scale <= 0:
      raise ValueError(
        f'input_scale is {self.input_scale}; it must be positive'
      )

  def logsnr(self, t: jax.Array) -> jax.Array:
    """Log signal-to-noise ratio at time t in [0, 1]; same shape as t."""
    return jnp.clip(self._unclipped(t), self.logsnr_min, self.logsnr_max)

  def alpha(self, t: jax.Array) -> jax.Array:
    """Factor of the data at time t in [0, 1]; same shape as t."""
    return alpha_of(self.logsnr(t))

  def sigma(self, t: jax.Array) -> jax.Array:
    """Standard deviation of the noise at time t in [0, 1]; shape of t."""
    return sigma_of(self.logsnr(t))

  def dlogsnr_dt(self, t: jax.Array) -> jax.Array:
    """Slope of logsnr at time t in [0, 1] (<= 0; 0 where it is clipped)."""
    # In closed form: autodiff of clip gives 0 * inf = nan at both ends.
    t = jnp.asarray(t, jnp.float32)
    if self.kind == 'cosine':
      slope = -2 * jnp.pi / jnp.sin(jnp.pi * t)
    elif self.kind == 'linear':
      slope = 20 * t / jnp.expm1(-10 * (1 - t) * (1 + t))
      slope = slope - 20 * t / jnp.expm1(10 * t**2)
    else:
      slope = -1 / (t * (1 - t))
    logsnr = self._unclipped(t)
    inside = (logsnr > self.logsnr_min) & (logsnr < self.logsnr_max)
    return jnp.where(inside, slope, 0.0)

  def _unclipped(self, t):
    # A compiled 3 / 3 may be 3 * (1 / 3), which is over 1: its log is nan.
    t = jnp.clip(jnp.asarray(t, jnp.float32), 0.0, 1.0)
    if self.kind == 'cosine':
      # log cot^2(pi t / 2); cos written as a sine of 1 - t, which is exact
      # near t = 1, where float32 cos(pi t / 2) changes sign.
      half_pi = jnp.pi / 2
      logsnr = 2 * (
        jnp.log(jnp.sin(half_pi * (1 - t))) - jnp.log(jnp.sin(half_pi * t))
      )
    elif self.kind == 'linear':
      # SNR = b^2 / expm1(u), u = 1e-4 + 10 t^2, reaches neither end; alpha^2
      # is moved affinely so that it does, after the input scale has acted.
      # That leaves this logsnr, with the input scale in the constant.
      b2 = self.input_scale**2
      ends = (math.expm1(1e-4) + b2) / (math.expm1(10.0001) + b2)
      logsnr = jnp.log(jnp.expm1(10 * (1 - t) * (1 + t)))
      return logsnr - jnp.log(-jnp.expm1(-10 * t**2)) + math.log(ends)
    else:
      logsnr = jnp.log1p(-t) - jnp.log(t)
    return logsnr + 2 * math.log(self.input_scale)


def alpha_of(logsnr: jax.Array) -> jax.Array:
  """Factor of the data at a logsnr."""
  return jnp.sqrt(jax.nn.sigmoid(logsnr))


def sigma_of(logsnr: jax.Array) -> jax.Array:
  """Standard deviation of the noise at a logsnr."""
  return jnp.sqrt(jax.nn.sigmoid(-logsnr))


def loss_weight(
  schedule: Schedule,
  t: jax.Array,
  kind: str = 'sigmoid',
  bias: float = -4.0,
  decoupled: bool = True,
) -> jax.Array:
  """Weight w(t) of the squared error of x_hat (sec. 3.3, Fig. 7).

  Args:
    schedule: the noise schedule.
    t: times in [0, 1], any shape.
    kind: 'sigmoid' (sigmoid(logsnr - bias)), 'uniform' (1), 'SNR',
      'SNR_plus1' (SNR + 1) or 'SNR_trunc' (max(SNR, 1)).
    bias: shift of the sigmoid weight, in logsnr.
    decoupled: multiply by -dlogsnr/dt, so that the loss as an integral over
      logsnr does not depend on the schedule.

  Returns:
    Weights >= 0, float32, of the shape of t.

  Raises:
    ValueError: if kind is unknown.
  """
  logsnr = schedule.logsnr(t)
  if kind == 'sigmoid':
    weight = jax.nn.sigmoid(logsnr - bias)
  elif kind == 'uniform':
    weight = jnp.ones_like(logsnr)
  elif kind == 'SNR':
    weight = jnp.exp(logsnr)
  elif kind == 'SNR_plus1':
    weight = jnp.exp(logsnr) + 1
  elif kind == 'SNR_trunc':
    weight = jnp.maximum(jnp.exp(logsnr), 1.0)
  else:
    raise ValueError(
      f'unknown loss weight {kind!r}; choose one of {", ".join(LOSS_WEIGHTS)}'
    )
  return weight * -schedule.dlogsnr_dt(t) if decoupled else weight
