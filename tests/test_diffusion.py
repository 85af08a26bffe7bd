"""Conversions, guidance, loss: golden values, inverses, invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitseg_jax import diffusion
from bitseg_jax.schedule import Schedule

SCHEDULE = Schedule('cosine', 0.1)


@pytest.mark.parametrize('name', ['X', 'EPS', 'V'])
def test_golden_predictions(golden, name):
  value = lambda key: golden[f'predict/{name}/{key}']
  alpha, sigma = (
    f(value('t'))[:, None, None, None] for f in (SCHEDULE.alpha, SCHEDULE.sigma)
  )
  x_hat, x_hat_uncond = (
    diffusion.to_x(value(key), value('x_t'), alpha, sigma, name.lower())
    for key in ('output', 'output_uncond')
  )
  near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  near(x_hat, value('x_hat'))
  eps = diffusion.to_eps(x_hat, value('x_t'), alpha, sigma)
  near(eps, value('eps_hat'))
  weight = value('guidance')[:, None, None, None]
  guided = diffusion.guide(x_hat, x_hat_uncond, weight)
  near(np.clip(guided, -1, 1), value('x_hat_guided_clipped'))


@pytest.mark.parametrize('pred_type', diffusion.PRED_TYPES)
def test_every_prediction_recovers_x(pred_type):
  key_x, key_eps = jax.random.split(jax.random.key(0))
  x = jnp.sign(jax.random.normal(key_x, (5, 4, 4, 6)))
  eps = jax.random.normal(key_eps, x.shape)
  t = jnp.linspace(0.05, 0.9, 5)[:, None, None, None]
  alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
  z_t = diffusion.q_sample(x, eps, alpha, sigma)
  output = {'x': x, 'eps': eps, 'v': alpha * eps - sigma * x}[pred_type]
  x_hat = diffusion.to_x(output, z_t, alpha, sigma, pred_type)
  np.testing.assert_allclose(x_hat, x, atol=1e-3)
  np.testing.assert_allclose(
    diffusion.to_eps(x, z_t, alpha, sigma), eps, atol=1e-3
  )


def test_guidance_is_the_same_mix_in_eps():
  cond, uncond, z_t = jax.random.normal(jax.random.key(0), (3, 2, 4, 4, 6))
  alpha, sigma = 0.6, 0.8
  to_eps = lambda x: diffusion.to_eps(x, z_t, alpha, sigma)
  np.testing.assert_allclose(
    to_eps(diffusion.guide(cond, uncond, 1.5)),
    diffusion.guide(to_eps(cond), to_eps(uncond), 1.5),
    atol=1e-5,
  )


def test_times_are_one_a_stratum():
  t = diffusion.stratified_times(jax.random.key(3), 64)
  np.testing.assert_array_equal(np.sort(np.floor(t * 64)), np.arange(64))
  assert np.any(np.diff(t) < 0)


def test_times_stay_below_1(monkeypatch):
  """A student's would else be beyond its sampler's first step."""
  largest = lambda key, shape: jnp.full(shape, 1 - 2**-23)
  monkeypatch.setattr(jax.random, 'uniform', largest)
  assert diffusion.stratified_times(jax.random.key(0), 512).max() < 1


def test_loss_ignores_what_is_not_valid():
  x, x_hat = jax.random.normal(jax.random.key(1), (2, 3, 4, 4, 6))
  valid = jnp.arange(16).reshape(4, 4) % 3 != 0
  valid = jnp.stack([valid, ~valid, jnp.zeros_like(valid)])
  weight = jnp.array([1.0, 2.0, 3.0])
  loss = diffusion.denoising_loss(x_hat, x, weight, valid)
  wild = jnp.where(valid[..., None], x_hat, 1e9)
  np.testing.assert_array_equal(
    diffusion.denoising_loss(wild, x, weight, valid), loss
  )
  by_hand = np.square(x_hat - x).sum(-1)[0][valid[0]].mean()
  np.testing.assert_allclose(loss[0], by_hand, rtol=1e-5)
  assert loss[2] == 0


def test_the_denoiser_bounds_x_by_tanh():
  z_t = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
  denoise = diffusion.make_denoiser(
    lambda params, z_t, image, t: params * z_t, SCHEDULE
  )
  x_hat = denoise(100.0, z_t, None, jnp.array([0.2, 0.8]))
  assert np.abs(x_hat).max() <= 1
