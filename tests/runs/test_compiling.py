"""Options of the compiler: accepted, without effect on values, left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitseg_jax.runs import devices


@pytest.fixture
def mesh(monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  return devices.make_mesh()


def test_the_compiler_takes_the_options_and_computes_the_same(mesh):
  options = devices.compiler_options(mesh)
  if options is None:
    pytest.skip('this jaxlib has no such choice')

  def loss(kernel, x):
    y = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return jnp.mean(jnp.square(y))

  draw = np.random.default_rng(0)
  kernel = draw.normal(size=(3, 3, 32, 32)).astype(np.float32)
  x = draw.normal(size=(2, 16, 16, 32)).astype(np.float32)
  plain = jax.jit(jax.grad(loss)).lower(kernel, x).compile()
  chosen = jax.jit(jax.grad(loss), compiler_options=options)
  chosen = chosen.lower(kernel, x).compile()
  assert chosen.as_text() != plain.as_text()  # the options reach the compiler
  np.testing.assert_allclose(
    chosen(kernel, x), plain(kernel, x), rtol=1e-4, atol=1e-5
  )


def test_nothing_is_chosen_against_the_user_or_an_older_jaxlib(
  mesh, monkeypatch
):
  monkeypatch.setattr(devices, '_jaxlib_knows', lambda *names: True)
  assert devices.compiler_options(mesh)
  with monkeypatch.context() as patch:
    patch.setenv(
      'XLA_FLAGS', f'--{next(iter(devices.compiler_options(mesh)))}='
    )
    assert devices.compiler_options(mesh) is None
  monkeypatch.setattr(devices, '_jaxlib_knows', lambda *names: False)
  assert devices.compiler_options(mesh) is None


def test_what_jaxlib_knows_is_found_in_its_library():
  assert devices._jaxlib_knows('xla_cpu_enable_fast_math')
  assert not devices._jaxlib_knows('xla_cpu_no_such_option_at_all')
