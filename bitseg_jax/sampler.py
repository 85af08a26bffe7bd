"""Samples codes from noise in one scan over time (sec. 3.1).

`sample` takes the denoiser as a plain function and repeats a step of one of
METHODS. A new method is one function and one row of METHODS.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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
  """Draws z_s from p(z_s | z_t, x = x_hat) for s < t.

  Args:
    z_t: noisy codes at t, float [..., C].
    x_hat: predicted clean codes, shape of z_t.
    noise: standard normal noise, shape of z_t.
    logsnr_t: logsnr at t, broadcasts against z_t.
    logsnr_s: logsnr at s, above logsnr_t, broadcasts against z_t.
    variance: 'large' (sigma_t^2 c) or 'small' (sigma_s^2 c), with
      c = 1 - SNR_t / SNR_s.

  Returns:
    z_s, shape of z_t.

  Raises:
    ValueError: if variance is unknown.
  """
  if variance not in VARIANCES:
    raise ValueError(
      f'unknown variance {variance!r}; choose one of {", ".join(VARIANCES)}'
    )
  ratio = jnp.exp(logsnr_t - logsnr_s)  # SNR_t / SNR_s
  c = -jnp.expm1(logsnr_t - logsnr_s)
  alpha_s = alpha_of(logsnr_s)
  mean = alpha_s * (ratio * z_t / alpha_of(logsnr_t) + c * x_hat)
  sigma = sigma_of(logsnr_t if variance == 'large' else logsnr_s)
  return mean + sigma * jnp.sqrt(c) * noise


def ddim_step(
  z_t: jax.Array, x_hat: jax.Array, logsnr_t: jax.Array, logsnr_s: jax.Array
) -> jax.Array:
  """Moves z_t to s, keeping x_hat and the noise that it implies.

  Args:
    z_t: noisy codes at t, float [..., C].
    x_hat: predicted clean codes, shape of z_t.
    logsnr_t: logsnr at t, broadcasts against z_t.
    logsnr_s: logsnr at s, broadcasts against z_t.

  Returns:
    z_s, shape of z_t.
  """
  eps = diffusion.to_eps(x_hat, z_t, alpha_of(logsnr_t), sigma_of(logsnr_t))
  return diffusion.q_sample(x_hat, eps, alpha_of(logsnr_s), sigma_of(logsnr_s))


def dpmpp_step(
  z_t: jax.Array,
  x_hat: jax.Array,
  x_before: jax.Array,
  logsnr_t: jax.Array,
  logsnr_s: jax.Array,
  logsnr_before: jax.Array,
) -> jax.Array:
  """Moves z_t to s, extrapolating x_hat from the step before.

  With x_before = x_hat this is ddim_step.

  Args:
    z_t: noisy codes at t, float [..., C].
    x_hat: clean codes predicted at t, shape of z_t.
    x_before: clean codes predicted one step before, at a larger t.
    logsnr_t: logsnr at t, broadcasts against z_t.
    logsnr_s: logsnr at s, broadcasts against z_t.
    logsnr_before: logsnr at the time of x_before, at most logsnr_t.

  Returns:
    z_s, shape of z_t.

  Source: DPM-Solver++(2M), Lu et al. 2022, algorithm 2.
  """
  last = jnp.maximum(logsnr_t - logsnr_before, 1e-6)
  ahead = x_hat + (logsnr_s - logsnr_t) / (2 * last) * (x_hat - x_before)
  return ddim_step(z_t, ahead, logsnr_t, logsnr_s)


def guided(
  denoise: Callable[..., jax.Array],
  params: Any,
  image: jax.Array,
  guidance_weight: float,
  interval: tuple[float, float] = (0.0, 1.0),
) -> Callable[..., jax.Array]:
  """Binds a denoiser to parameters, images and guidance (sec. 3.1).

  Args:
    denoise: (params, z_t, image, t, ...) -> x_hat, of diffusion.make_denoiser.
    params: parameters of the network.
    image: normalised photographs and, for networks that see prompts, these:
      float [B, H, W, 3 or more]; the unconditional branch sees zeros in all.
    guidance_weight: w of diffusion.guide; 0 skips the unconditional branch.
    interval: lowest and highest t to guide at (Kynkaanniemi et al. 2024).

  Returns:
    (z_t, t) -> guided x_hat; both branches run as one batch. A third argument,
    the x_before of self-conditioning, is passed to both.
  """
  if guidance_weight == 0:
    return lambda z_t, t, *before: denoise(params, z_t, image, t, *before)
  images = _both(image, jnp.zeros_like(image))

  def denoise_both(z_t, t, *before):
    twice = [_both(a, a) for a in (z_t, t, *before)]
    x_hat = denoise(params, twice[0], images, *twice[1:])
    x_hat = x_hat.reshape(-1, 2, *z_t.shape[1:])
    within = (t >= interval[0]) & (t <= interval[1])
    weight = jnp.where(within, guidance_weight, 0.0)[:, None, None, None]
    return diffusion.guide(x_hat[:, 0], x_hat[:, 1], weight)

  return denoise_both


def _both(cond, uncond):
  """Joins two batches row by row, so that no row moves to another device."""
  return jnp.stack([cond, uncond], 1).reshape(-1, *cond.shape[1:])


class Interval(NamedTuple):
  """The state and the times of one sampling step.

  Attributes:
    z_t: noisy codes at t, float32 [B, H, W, C].
    x_before: x_hat of the last step, shape of z_t; zeros in the first step.
    first: whether this is the first step, bool [].
    t: current time, float32 [].
    s: time to reach, below t.
    before: time of x_before, above t; equal to t in the first step.
    logsnr: time -> logsnr, see Schedule.logsnr.
    noise: standard normal noise, shape of z_t, for methods that add some.
    variance: 'large' or 'small', see ddpm_step.
  """

  z_t: jax.Array
  x_before: jax.Array
  first: jax.Array
  t: jax.Array
  s: jax.Array
  before: jax.Array
  logsnr: Callable[[jax.Array], jax.Array]
  noise: jax.Array
  variance: str


# A method maps (predict, interval) to (z_s, x_hat); it may call
# predict(z, t, x_before) -> x_hat more than once.
Predict = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _ddpm(predict: Predict, i: Interval) -> tuple[jax.Array, jax.Array]:
  x_hat = predict(i.z_t, i.t, i.x_before)
  times = i.logsnr(i.t), i.logsnr(i.s)
  return ddpm_step(i.z_t, x_hat, i.noise, *times, i.variance), x_hat


def _ddim(predict: Predict, i: Interval) -> tuple[jax.Array, jax.Array]:
  x_hat = predict(i.z_t, i.t, i.x_before)
  return ddim_step(i.z_t, x_hat, i.logsnr(i.t), i.logsnr(i.s)), x_hat


def _dpmpp(predict: Predict, i: Interval) -> tuple[jax.Array, jax.Array]:
  x_hat = predict(i.z_t, i.t, i.x_before)
  x_before = jnp.where(i.first, x_hat, i.x_before)
  times = (i.logsnr(time) for time in (i.t, i.s, i.before))
  return dpmpp_step(i.z_t, x_hat, x_before, *times), x_hat


def _heun(predict: Predict, i: Interval) -> tuple[jax.Array, jax.Array]:
  """Takes a DDIM step to s, then repeats it with the mean x_hat of t and s.

  Source: DPM-Solver++(2S) with r = 1, second order, Lu et al. 2022.
  """
  times = i.logsnr(i.t), i.logsnr(i.s)
  x_hat = predict(i.z_t, i.t, i.x_before)
  x_ahead = predict(ddim_step(i.z_t, x_hat, *times), i.s, x_hat)
  return ddim_step(i.z_t, (x_hat + x_ahead) / 2, *times), x_hat


METHODS = {'ddpm': _ddpm, 'ddim': _ddim, 'dpmpp': _dpmpp, 'heun': _heun}


class Steering(NamedTuple):
  """What is known of a sample before it is drawn.

  Attributes:
    known: x of the pixels that are known, float [B, H, W, C]; 0 in all channels
      of the others. x_hat is set to it at every step, so the rest can follow.
    start: x to begin from, float [B, H, W, C]; noised to t = strength, from
      where the steps lead to 0 (Meng et al. 2022).
    strength: float32 [] in (0, 1]; at 1 start has no influence.
  """

  known: jax.Array
  start: jax.Array
  strength: jax.Array


def sample(
  denoise_fn: Callable[..., jax.Array],
  key: jax.Array,
  shape: tuple[int, ...],
  schedule: Schedule,
  num_steps: int = 8,
  method: str = 'ddpm',
  variance: str = 'large',
  valid_mask: jax.Array | None = None,
  time_difference: float = 0.0,
  self_conditioning: bool = False,
  on_step: Callable[[], None] | None = None,
  steering: Steering | None = None,
) -> jax.Array:
  """Draws codes in num_steps equidistant steps from t = 1 to t = 0.

  Args:
    denoise_fn: (z_t [B, H, W, C], t float32 [B]) -> x_hat, already guided.
    key: a PRNG key, or B keys, of which a sample depends on its own alone.
    shape: (B, H, W, C).
    schedule: the noise schedule that the network was trained with.
    num_steps: at least 1. Each step calls denoise_fn once, 'heun' twice in all
      but the last.
    method: 'ddpm', 'ddim', 'dpmpp' or 'heun'.
    variance: variance of the ddpm steps, 'large' or 'small'.
    valid_mask: bool [B, H, W]; in padding (False) x_hat is held at 0.
    time_difference: by how many steps z is denoised beyond the time that the
      next call is given (asymmetric time intervals, Chen et al. 2023).
    self_conditioning: pass denoise_fn its last x_hat as well, zeros at first.
    on_step: called on the host when a step begins, also where this is compiled.
    steering: what is known, and what to begin from.

  Returns:
    x_hat of the last step, float32 [B, H, W, C], clipped to [-1, 1].

  Raises:
    ValueError: unknown method or variance, num_steps < 1, or not 1 or B keys.
  """
  _check(num_steps, method)
  noise = _noise_of(_one_key_a_sample(key, shape[0]), shape)
  fixed = shape[0], valid_mask, self_conditioning, steering and steering.known
  predict = _predictor(denoise_fn, *fixed)
  from_t, tell = steering.strength if steering else 1, _teller(on_step)

  def step(carry, i):
    tell()
    z_t, x_before = carry
    times = _times(i, num_steps, time_difference, from_t)
    drawn = schedule.logsnr, noise(i - 1), variance
    interval = Interval(z_t, x_before, i == num_steps, *times, *drawn)
    return METHODS[method](predict, interval), None

  first = _begin(noise(num_steps), steering, schedule)
  steps = jnp.arange(num_steps, 1, -1)
  (z_t, x_before), _ = jax.lax.scan(step, (first, jnp.zeros_like(first)), steps)
  tell()
  return predict(z_t, from_t / num_steps, x_before)


def _times(i, num_steps, time_difference, from_t):
  """Returns t, s and the time before of step i, see Interval."""
  return (
    from_t * i / num_steps,
    from_t * jnp.maximum(i - 1 - time_difference, 0) / num_steps,
    from_t * jnp.minimum(i + 1, num_steps) / num_steps,
  )


def _begin(noise, steering, schedule):
  """Returns the z_t of the first step."""
  if steering is None:
    return noise
  _, start, t = steering
  z_t = diffusion.q_sample(start, noise, schedule.alpha(t), schedule.sigma(t))
  return jnp.where(t < 1, z_t, noise)  # alpha is small at t = 1, but not 0


def _check(num_steps, method):
  if num_steps < 1:
    raise ValueError(f'num_steps is {num_steps}; it must be at least 1')
  if method not in METHODS:
    raise ValueError(
      f'unknown method {method!r}; choose one of {", ".join(METHODS)}'
    )


def _predictor(denoise_fn, count, valid_mask, self_conditioning, known):
  """Returns (z_t, t, x_before) -> x_hat, clipped, masked, true to `known`."""

  def predict(z_t, t, x_before):
    t = jnp.full(count, t, jnp.float32)
    x_hat = denoise_fn(z_t, t, *([x_before] if self_conditioning else []))
    # Guidance overshoots; the steps recompute eps from the clipped x_hat.
    x_hat = jnp.clip(x_hat.astype(jnp.float32), -1, 1)
    if known is not None:
      x_hat = jnp.where(jnp.any(known != 0, -1, keepdims=True), known, x_hat)
    return x_hat if valid_mask is None else x_hat * valid_mask[..., None]

  return predict


def _teller(on_step):
  """Returns () -> None that calls on_step whenever the program comes there."""
  # Without arguments: to read one within a callback may wait for the program
  # that waits for the callback.
  return lambda: on_step and jax.debug.callback(on_step)


def _noise_of(keys, shape):
  """Returns i -> noise of `shape`: z_1 at i = num_steps, else of step i + 1."""

  def noise(i):
    draw = lambda k: jax.random.normal(jax.random.fold_in(k, i), shape[1:])
    return jax.vmap(draw)(keys)

  return noise


def _one_key_a_sample(key, count):
  """Returns typed keys [count] from one or several keys, typed or legacy."""
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key)
  if key.ndim == 0:
    return jax.random.split(key, count)
  if key.shape != (count,):
    raise ValueError(f'key has shape {key.shape}; give 1 key or {count}')
  return key
