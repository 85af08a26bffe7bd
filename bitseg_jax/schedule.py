"""Noise schedules and loss weights as functions of time (secs. 3.1-3.3).

Everything is computed from logsnr = log(alpha^2 / sigma^2), because near t = 0
sigma^2 = 1 - alpha^2 cannot be recovered from a float32 alpha^2.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

SCHEDULES = ('cosine', 'linear', 'linear_simple')
LOSS_WEIGHTS = {  # kind -> function of logsnr and bias
  'sigmoid': lambda logsnr, bias: jax.nn.sigmoid(logsnr - bias),
  'uniform': lambda logsnr, bias: jnp.ones_like(logsnr),
  'SNR': lambda logsnr, bias: jnp.exp(logsnr),
  'SNR_plus1': lambda logsnr, bias: jnp.exp(logsnr) + 1,
  'SNR_trunc': lambda logsnr, bias: jnp.maximum(jnp.exp(logsnr), 1.0),
}


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Variance-preserving noise schedule of z_t = alpha(t) x + sigma(t) eps.

  Args:
    kind: 'cosine' (alpha^2 = cos^2(pi t / 2)), 'linear' (alpha^2 falls as
      e^(-10 t^2)) or 'linear_simple' (alpha^2 = 1 - t).
    input_scale: factor b > 0 on the data; it multiplies the signal-to-noise
      ratio by b^2, while z_t keeps unit variance (sec. 3.3).
    logsnr_min, logsnr_max: limits of logsnr.

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
      raise ValueError(f'input_scale is {self.input_scale}; it must be over 0')

  def logsnr(self, t: jax.Array) -> jax.Array:
    """Returns the log signal-to-noise ratio at t in [0, 1], shape of t."""
    return jnp.clip(self._unclipped(t), self.logsnr_min, self.logsnr_max)

  def alpha(self, t: jax.Array) -> jax.Array:
    """Returns the factor of the data at t."""
    return alpha_of(self.logsnr(t))

  def sigma(self, t: jax.Array) -> jax.Array:
    """Returns the noise's standard deviation at t."""
    return sigma_of(self.logsnr(t))

  def dlogsnr_dt(self, t: jax.Array) -> jax.Array:
    """Returns the slope of logsnr at t in [0, 1]: <= 0, and 0 where clipped."""
    # Closed form, because autodiff of clip gives 0 * inf = nan at both ends.
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
    # A compiled 3 / 3 may become 3 * (1 / 3) > 1, whose logsnr is nan.
    t = jnp.clip(jnp.asarray(t, jnp.float32), 0.0, 1.0)
    if self.kind == 'cosine':
      # log cot^2(pi t / 2). The cosine is written as a sine of 1 - t, which is
      # exact near t = 1, where float32 cos(pi t / 2) changes sign.
      half_pi = jnp.pi / 2
      logsnr = 2 * (
        jnp.log(jnp.sin(half_pi * (1 - t))) - jnp.log(jnp.sin(half_pi * t))
      )
    elif self.kind == 'linear':
      # SNR = b^2 / expm1(u) with u = 1e-4 + 10 t^2 has alpha^2 < 1 at t = 0 and
      # > 0 at t = 1. An affine map of alpha^2, after the input scale, makes it
      # 1 and 0; this is its logsnr, with the input scale in the constant.
      b2 = self.input_scale**2
      ends = (math.expm1(1e-4) + b2) / (math.expm1(10.0001) + b2)
      logsnr = jnp.log(jnp.expm1(10 * (1 - t) * (1 + t)))
      return logsnr - jnp.log(-jnp.expm1(-10 * t**2)) + math.log(ends)
    else:
      logsnr = jnp.log1p(-t) - jnp.log(t)
    return logsnr + 2 * math.log(self.input_scale)


def alpha_of(logsnr: jax.Array) -> jax.Array:
  """Returns alpha, the factor of the data, at a logsnr of any shape."""
  return jnp.sqrt(jax.nn.sigmoid(logsnr))


def sigma_of(logsnr: jax.Array) -> jax.Array:
  """Returns sigma, the noise's standard deviation, at a logsnr of any shape."""
  return jnp.sqrt(jax.nn.sigmoid(-logsnr))


def loss_weight(
  schedule: Schedule,
  t: jax.Array,
  kind: str = 'sigmoid',
  bias: float = -4.0,
  decoupled: bool = True,
) -> jax.Array:
  """Returns the weight w(t) of the squared error of x_hat (sec. 3.3, Fig. 7).

  Args:
    schedule: the noise schedule.
    t: times in [0, 1], float of any shape.
    kind: one of LOSS_WEIGHTS.
    bias: shift of the sigmoid weight, in units of logsnr.
    decoupled: multiply by -dlogsnr/dt, so that the loss, as an integral over
      logsnr, does not depend on the schedule.

  Returns:
    Weights >= 0, float32 with the shape of t.

  Raises:
    ValueError: if kind is unknown.
  """
  if kind not in LOSS_WEIGHTS:
    raise ValueError(
      f'unknown loss weight {kind!r}; choose one of {", ".join(LOSS_WEIGHTS)}'
    )
  weight = LOSS_WEIGHTS[kind](schedule.logsnr(t), bias)
  return weight * -schedule.dlogsnr_dt(t) if decoupled else weight
