"""Forward diffusion, prediction types, guidance and the loss (sec. 3).

All functions are pure. alpha and sigma, the factors of data and noise at t, may
be scalars or arrays that broadcast against x, for example [B, 1, 1, 1].

Sections and equations, in every file, are those of Christensen et al., NLDL
2026, arXiv 2601.02881.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bitseg_jax.schedule import Schedule

PRED_TYPES = ('x', 'eps', 'v')


def q_sample(
  x: jax.Array, eps: jax.Array, alpha: jax.Array, sigma: jax.Array
) -> jax.Array:
  """Noises x by eps, float [..., C]: z_t = alpha x + sigma eps (Eq. 1)."""
  return alpha * x + sigma * eps


def to_x(
  output: jax.Array,
  z_t: jax.Array,
  alpha: jax.Array,
  sigma: jax.Array,
  pred_type: str,
) -> jax.Array:
  """Converts the network output into x_hat.

  Args:
    output, z_t: network output and noisy codes, float [..., C].
    alpha, sigma: factors of data and noise at t.
    pred_type: 'x', 'eps' or 'v' (v = alpha eps - sigma x).

  Raises:
    ValueError: if pred_type is unknown.
  """
  if pred_type == 'x':
    return output
  if pred_type == 'eps':
    return (z_t - sigma * output) / alpha
  if pred_type == 'v':
    return alpha * z_t - sigma * output
  raise ValueError(
    f'unknown pred_type {pred_type!r}; choose one of {", ".join(PRED_TYPES)}'
  )


def to_eps(
  x_hat: jax.Array, z_t: jax.Array, alpha: jax.Array, sigma: jax.Array
) -> jax.Array:
  """Returns the eps for which alpha x_hat + sigma eps = z_t, shape of z_t."""
  return (z_t - alpha * x_hat) / sigma


def guide(
  cond: jax.Array, uncond: jax.Array, guidance_weight: float
) -> jax.Array:
  """Applies classifier-free guidance: (1 + w) cond - w uncond; w = 0 is off.

  cond and uncond are x_hat with and without the image. Mixing eps would be the
  same, since eps is affine in x, but it loses 2e-2 at t = 1 in float32.
  """
  return (1 + guidance_weight) * cond - guidance_weight * uncond


def guided_denoiser(
  denoise: Callable[..., jax.Array],
  params: Any,
  seen: jax.Array,
  guidance_weight: float,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Binds a denoiser to parameters, photos and guidance (sec. 3.1).

  Args:
    denoise, params: see make_denoiser.
    seen: what the network sees of each photo, float [B, ...]; the
      unconditional branch sees zeros.
    guidance_weight: w of guide; 0 skips the unconditional branch.

  Returns:
    (z_t, t) -> guided x_hat; both branches run as one batch.
  """
  if guidance_weight == 0:
    return lambda z_t, t: denoise(params, z_t, seen, t)
  # Row by row, so that no row moves to another device.
  both = lambda a, b: jnp.stack([a, b], 1).reshape(-1, *a.shape[1:])
  seen_or_not = both(seen, jnp.zeros_like(seen))

  def denoise_both(z_t, t):
    x_hat = denoise(params, both(z_t, z_t), seen_or_not, both(t, t))
    x_hat = x_hat.reshape(-1, 2, *z_t.shape[1:])
    return guide(x_hat[:, 0], x_hat[:, 1], guidance_weight)

  return denoise_both


def stratified_times(key: jax.Array, batch_size: int) -> jax.Array:
  """Draws one diffusion time per example, one in each of B equal strata.

  Returns:
    float32 [B] in random order; each time on its own is uniform on [0, 1).
  """
  key_order, key_place = jax.random.split(key)
  strata = jax.random.permutation(key_order, batch_size)
  t = (strata + jax.random.uniform(key_place, (batch_size,))) / batch_size
  return jnp.minimum(t, 1 - 2**-24)  # float32 may round the last one up to 1


def denoising_loss(
  x_hat: jax.Array, x: jax.Array, weight: jax.Array, valid: jax.Array
) -> jax.Array:
  """Returns each row's weighted error of x_hat on valid pixels (sec. 3.3).

  Args:
    x_hat, x: predicted and clean codes, float [B, H, W, C].
    weight: w(t), float [B].
    valid: bool [B, H, W]; False (padding, unlabelled) leaves a pixel out.

  Returns:
    float32 [B]: the squared error summed over channels, averaged over the valid
    pixels of a row, times its weight; 0 for a row without a valid pixel.
  """
  error = jnp.sum(jnp.square(x_hat - x), axis=-1, dtype=jnp.float32)
  total = jnp.sum(jnp.where(valid, error, 0.0), axis=(1, 2))
  count = jnp.sum(valid, axis=(1, 2), dtype=jnp.float32)
  return weight * total / jnp.where(count > 0, count, 1.0)


def make_denoiser(
  apply_fn: Callable[..., jax.Array],
  schedule: Schedule,
  pred_type: str = 'x',
  tanh: bool = True,
) -> Callable[..., jax.Array]:
  """Wraps a network into a function that predicts the clean codes x_hat.

  Args:
    apply_fn: (params, z_t [B, H, W, C], seen [B, ...], t [B]) -> output
      [B, H, W, C]; seen is what the network sees of a photo.
    schedule, pred_type: of the network, see to_x.
    tanh: apply tanh to the output; for x-prediction, whose range is [-1, 1].

  Returns:
    denoise(params, z_t, seen, t) -> x_hat [B, H, W, C], not clipped.
  """

  def denoise(params, z_t, seen, t):
    output = apply_fn(params, z_t, seen, t)
    if tanh:
      output = jnp.tanh(output)
    at_t = t[:, None, None, None]
    return to_x(
      output, z_t, schedule.alpha(at_t), schedule.sigma(at_t), pred_type
    )

  return denoise
