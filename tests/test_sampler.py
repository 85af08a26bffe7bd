"""Steps and the scan: golden values, limits, independence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitseg_jax import diffusion, sampler
from bitseg_jax.schedule import Schedule

SCHEDULE = Schedule('cosine', 0.1)
SHAPE = (4, 8, 8, 6)


def test_golden_steps(golden):
  names = [n for n in golden if n.startswith('ddpm/') and n.endswith('/x_s')]
  for name in names:
    _, variance, n, i, _ = name.split('/')
    n, i = int(n[2:]), int(i[2:])  # from t = (i + 1) / n to s = i / n
    z_t, x_hat, noise = (
      golden[name.replace('x_s', key)] for key in ('x_t', 'x_hat', 'noise')
    )
    times = SCHEDULE.logsnr((i + 1) / n), SCHEDULE.logsnr(i / n)
    np.testing.assert_allclose(
      sampler.ddpm_step(z_t, x_hat, noise, *times, variance),
      golden[name],
      atol=1e-4,
    )
    np.testing.assert_allclose(
      sampler.ddim_step(z_t, x_hat, *times),
      golden[f'ddim/n={n}/i={i}/{variance}/x_s'],
      atol=1e-4,
    )
  assert len(names) == 12


def test_ddpm_keeps_the_marginal():
  x = jnp.ones((100_000,))
  eps, noise = jax.random.normal(jax.random.key(0), (2, *x.shape))
  t, s = 0.5, 0.3
  z_t = diffusion.q_sample(x, eps, SCHEDULE.alpha(t), SCHEDULE.sigma(t))
  z_s = sampler.ddpm_step(
    z_t, x, noise, SCHEDULE.logsnr(t), SCHEDULE.logsnr(s), 'small'
  )
  assert abs(z_s.mean() - SCHEDULE.alpha(s)) < 0.01
  assert abs(z_s.std() - SCHEDULE.sigma(s)) < 0.01


def test_ddim_with_the_truth_follows_the_noise():
  x, eps = jax.random.normal(jax.random.key(0), (2, *SHAPE))
  at = lambda t: diffusion.q_sample(
    x, eps, SCHEDULE.alpha(t), SCHEDULE.sigma(t)
  )
  z_s = sampler.ddim_step(
    at(0.7), x, SCHEDULE.logsnr(0.7), SCHEDULE.logsnr(0.2)
  )
  np.testing.assert_allclose(z_s, at(0.2), atol=1e-4)


@pytest.mark.parametrize('method', sampler.METHODS)
@pytest.mark.parametrize('num_steps', [1, 3])
def test_a_perfect_denoiser_is_believed(method, num_steps):
  x = jnp.sign(jax.random.normal(jax.random.key(0), SHAPE))
  out = sampler.sample(
    lambda z_t, t: x, jax.random.key(1), SHAPE, SCHEDULE, num_steps, method
  )
  np.testing.assert_array_equal(out, x)


def test_times_go_down_to_one_step_from_zero():
  seen = []
  sampler.sample(
    lambda z_t, t: (
      jax.debug.callback(lambda t: seen.append(float(t)), t[0]) or z_t
    ),
    jax.random.key(0),
    SHAPE,
    SCHEDULE,
    num_steps=4,
  )
  jax.effects_barrier()
  np.testing.assert_allclose(sorted(seen), [0.25, 0.5, 0.75, 1])


def test_a_sample_depends_on_its_own_key_alone():
  keys = jax.random.split(jax.random.key(0), 4)
  draw = lambda keys: sampler.sample(
    lambda z_t, t: jnp.tanh(z_t), keys, (len(keys), *SHAPE[1:]), SCHEDULE
  )
  together = draw(keys)
  alone = jnp.concatenate([draw(keys[i : i + 1]) for i in range(4)])
  np.testing.assert_allclose(together, alone, atol=1e-6)
  assert np.any(together[0] != together[1])


def test_padding_is_held_at_zero():
  valid = jnp.zeros(SHAPE[:3], bool).at[:, :5].set(True)
  out = sampler.sample(
    lambda z_t, t: jnp.ones_like(z_t),
    jax.random.key(0),
    SHAPE,
    SCHEDULE,
    valid_mask=valid,
  )
  np.testing.assert_array_equal(out, valid[..., None] * jnp.ones(SHAPE))


def test_guidance_in_one_batch_is_guidance_in_two():
  z_t, image = jax.random.normal(jax.random.key(0), (2, 4, 8, 8, 3))
  t = jnp.linspace(0.1, 1, 4)
  denoise = lambda params, z, i, t: (
    jnp.tanh(z + params * i) * (t[:, None, None, None])
  )
  out = diffusion.guided_denoiser(denoise, 2.0, image, 0.7)(z_t, t)
  expected = 1.7 * denoise(2.0, z_t, image, t) - 0.7 * denoise(
    2.0, z_t, 0 * image, t
  )
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
  off = diffusion.guided_denoiser(denoise, 2.0, image, 0.0)(z_t, t)
  np.testing.assert_array_equal(off, denoise(2.0, z_t, image, t))


def test_unknown_names_are_refused():
  arguments = (lambda z, t: z, jax.random.key(0), SHAPE, SCHEDULE)
  wrongs = [{'method': 'none such'}, {'variance': 'mid'}, {'num_steps': 0}]
  for wrong in [*wrongs, {'method': 'ddim', 'variance': 'mid'}]:
    with pytest.raises(ValueError):
      sampler.sample(*arguments, **wrong)


def test_the_error_of_ddim_falls_as_the_steps_grow():
  """Data N(0, s^2): the best denoiser and the flow are known in closed form."""
  schedule, data_variance = Schedule('cosine', 1.0), 0.04

  def scale(t):  # the flow keeps z_t over its standard deviation
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return jnp.sqrt(alpha**2 * data_variance + sigma**2)

  def predict(z_t, t):
    return schedule.alpha(t) * data_variance * z_t / scale(t) ** 2

  def error(num_steps):
    # From t = .8 to .2, where the last step returns x_hat instead of moving.
    time = lambda i: 0.2 + 0.6 * (i - 1) / num_steps
    x_hat = sampler.ddim(
      predict,
      jnp.ones((1, 1, 1, 1)),
      num_steps + 1,
      time,
      schedule.logsnr,
      None,
      'large',
    )
    z = x_hat / predict(1.0, 0.2)
    return float(abs(z.item() - scale(0.2) / scale(0.8)))

  assert 1.6 < error(10) / error(20) < 3


def test_a_legacy_key_is_one_key():
  sample = lambda key: sampler.sample(
    lambda z_t, t: jnp.tanh(z_t), key, (2, 4, 4, 2), SCHEDULE, num_steps=2
  )
  legacy, typed = jax.random.PRNGKey(3), jax.random.key(3)
  np.testing.assert_array_equal(sample(legacy), sample(typed))
  with pytest.raises(ValueError, match='give 1 key or 2'):
    sample(jax.random.split(typed, 3))


@pytest.mark.parametrize('num_steps', [3, 5, 6, 7, 10, 20, 49])
@pytest.mark.parametrize('method', sampler.METHODS)
def test_any_number_of_steps_gives_numbers(method, num_steps):
  # Steps that are no power of two have times that no float32 holds exactly.
  out = sampler.sample(
    lambda z_t, t: jnp.tanh(z_t),
    jax.random.key(0),
    SHAPE,
    SCHEDULE,
    num_steps,
    method,
  )
  assert np.all(np.isfinite(out)) and np.std(out) > 0


@pytest.mark.parametrize('method', sampler.METHODS)
@pytest.mark.parametrize('variance', sampler.VARIANCES)
def test_from_a_start_without_influence_it_is_a_sample(method, variance):
  denoise_fn = lambda z_t, t: jnp.tanh(3 * z_t) * t[:, None, None, None]
  key, shape = jax.random.key(3), (2, 4, 4, 3)
  noise_schedule = Schedule()
  how = {'num_steps': 3, 'method': method, 'variance': variance}
  plain = sampler.sample(denoise_fn, key, shape, noise_schedule, **how)
  start = jnp.ones(shape), jnp.float32(1)
  begun = sampler.sample_from(denoise_fn, key, start, noise_schedule, **how)
  np.testing.assert_allclose(begun, plain, rtol=1e-5, atol=1e-6)
  start = jnp.ones(shape), jnp.float32(0.3)
  other = sampler.sample_from(denoise_fn, key, start, noise_schedule, **how)
  assert not np.allclose(other, plain)
