"""Samples codes from noise in one scan over time (sec. 3.1).

Each of METHODS is a sampler, whole: it is given `predict`, which is the guided
denoiser with its result clipped and padding held at 0, and goes from z at the
first time to x_hat at the last. A new method is one function and one row.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bitseg_jax import diffusion
from bitseg_jax.schedule import Schedule, alpha_of, sigma_of

VARIANCES = ('large', 'small')


def ddpm_step(
  z_t: jax.Array,
  x_hat: jax.Array,
  noise: jax.Array,
  logsnr_t: jax.Array,
  logsnr_s: jax.Array,
  variance: str = 'large',
) -> jax.Array:
  """Draws z_s from p(z_s | z_t, x = x_hat) for s < t (Ho et al. 2020).

  Args:
    z_t, x_hat, noise: noisy codes at t, predicted clean codes and standard
      normal noise, float [..., C] each.
    logsnr_t, logsnr_s: logsnr at t and, above it, at s; broadcast against z_t.
    variance: 'large' (sigma_t^2 c) or 'small' (sigma_s^2 c), with
      c = 1 - SNR_t / SNR_s.

  Returns:
    z_s, shape of z_t.

  Raises:
    ValueError: if variance is unknown.
  """
  _check('variance', variance, VARIANCES)
  ratio = jnp.exp(logsnr_t - logsnr_s)  # SNR_t / SNR_s
  c = -jnp.expm1(logsnr_t - logsnr_s)
  alpha_s = alpha_of(logsnr_s)
  mean = alpha_s * (ratio * z_t / alpha_of(logsnr_t) + c * x_hat)
  sigma = sigma_of(logsnr_t if variance == 'large' else logsnr_s)
  return mean + sigma * jnp.sqrt(c) * noise


def ddim_step(
  z_t: jax.Array, x_hat: jax.Array, logsnr_t: jax.Array, logsnr_s: jax.Array
) -> jax.Array:
  """Moves z_t to s, keeping x_hat and its noise; arguments as of ddpm_step."""
  eps = diffusion.to_eps(x_hat, z_t, alpha_of(logsnr_t), sigma_of(logsnr_t))
  return diffusion.q_sample(x_hat, eps, alpha_of(logsnr_s), sigma_of(logsnr_s))


# Each sampler below takes
#   predict: (z_t [B, H, W, C], t float32 []) -> x_hat;
#   z: z at time(N), [B, H, W, C];
#   N: number of steps;
#   time: i -> time after which i steps are left, time(0) = 0;
#   logsnr: time -> logsnr;
#   noise: i -> standard normal noise, shape of z;
#   variance: of what ddpm adds.
# The last step returns x_hat instead of moving to t = 0.


def ddpm(predict, z, N, time, logsnr, noise, variance):
  """Ancestral sampling (Ho et al. 2020): new noise after each step."""

  def step(z, i):
    t, s = time(i), time(i - 1)
    x_hat = predict(z, t)
    z = ddpm_step(z, x_hat, noise(i - 1), logsnr(t), logsnr(s), variance)
    return z, None

  z, _ = jax.lax.scan(step, z, jnp.arange(N, 1, -1))
  return predict(z, time(1))


def ddim(predict, z, N, time, logsnr, noise, variance):
  """The deterministic path (Song et al. 2021), first order."""

  def step(z, i):
    t, s = time(i), time(i - 1)
    return ddim_step(z, predict(z, t), logsnr(t), logsnr(s)), None

  z, _ = jax.lax.scan(step, z, jnp.arange(N, 1, -1))
  return predict(z, time(1))


METHODS = {
  'ddpm': ddpm,
  'ddim': ddim,
}


def sample(
  denoise_fn: Callable[[jax.Array, jax.Array], jax.Array],
  key: jax.Array,
  shape: tuple[int, ...],
  schedule: Schedule,
  num_steps: int = 8,
  method: str = 'ddpm',
  variance: str = 'large',
  valid_mask: jax.Array | None = None,
) -> jax.Array:
  """Draws codes in num_steps equidistant steps from t = 1 to t = 0.

  Args:
    denoise_fn: (z_t [B, H, W, C], t float32 [B]) -> x_hat, already guided.
    key: a PRNG key, or B keys, of which a sample depends on its own alone.
    shape: (B, H, W, C).
    schedule: the noise schedule that the network was trained with.
    num_steps: at least 1; each calls denoise_fn once.
    method: one of METHODS.
    variance: variance of the ddpm steps, 'large' or 'small'.
    valid_mask: bool [B, H, W]; in padding (False) x_hat is held at 0.

  Returns:
    x_hat of the last step, float32 [B, H, W, C], clipped to [-1, 1].

  Raises:
    ValueError: unknown method or variance, num_steps < 1, or not 1 or B keys.
  """
  start = jnp.zeros(shape), 1.0  # at strength 1 it has no influence
  return sample_from(
    denoise_fn, key, start, schedule, num_steps, method, variance, valid_mask
  )


def sample_from(
  denoise_fn: Callable[[jax.Array, jax.Array], jax.Array],
  key: jax.Array,
  start: tuple[jax.Array, jax.Array],
  schedule: Schedule,
  num_steps: int = 8,
  method: str = 'ddpm',
  variance: str = 'large',
  valid_mask: jax.Array | None = None,
) -> jax.Array:
  """Draws codes that begin from others (Meng et al. 2022).

  Args:
    start: codes x to begin from, float [B, H, W, C], and strength, float32 []
      in (0, 1]. x is noised to t = strength; at 1 it has no influence.
    denoise_fn, key, schedule, num_steps, method, variance, valid_mask: as of
      `sample`, and so is what is returned and raised.
  """
  _check('method', method, METHODS)
  _check('variance', variance, VARIANCES)
  if num_steps < 1:
    raise ValueError(f'num_steps is {num_steps}; it must be at least 1')
  x, strength = start
  noise, predict = _noise(key, x.shape), _predictor(denoise_fn, valid_mask)
  z, walk = noise(num_steps), METHODS[method]
  alpha, sigma = schedule.alpha(strength), schedule.sigma(strength)
  # alpha is small at t = 1, but not 0.
  z = jnp.where(strength < 1, diffusion.q_sample(x, z, alpha, sigma), z)
  time = lambda i: strength * jnp.asarray(i, jnp.float32) / num_steps
  return walk(predict, z, num_steps, time, schedule.logsnr, noise, variance)


def _predictor(denoise_fn, valid_mask):
  """Returns (z_t, t) -> x_hat, clipped, and 0 in padding."""

  def predict(z_t, t):
    x_hat = denoise_fn(z_t, jnp.full(z_t.shape[:1], t, jnp.float32))
    # Guidance overshoots; the steps recompute eps from the clipped x_hat.
    x_hat = jnp.clip(x_hat.astype(jnp.float32), -1, 1)
    return x_hat if valid_mask is None else x_hat * valid_mask[..., None]

  return predict


def _noise(key, shape):
  """Returns i -> standard normal noise, of typed or legacy keys, one or [B]."""
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key)
  keys = jax.random.split(key, shape[0]) if key.ndim == 0 else key
  if keys.shape != shape[:1]:
    raise ValueError(f'key has shape {key.shape}; give 1 key or {shape[0]}')
  of_one = lambda key, i: jax.random.normal(
    jax.random.fold_in(key, i), shape[1:], jnp.float32
  )
  return lambda i: jax.vmap(of_one, (0, None))(keys, i)


def _check(kind, name, choices):
  if name not in choices:
    raise ValueError(
      f'unknown {kind} {name!r}; choose one of {", ".join(choices)}'
    )
