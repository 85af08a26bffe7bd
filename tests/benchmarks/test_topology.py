"""Programs compiled for TPUs send the gradient once, and no activations."""

import importlib.util
import re

import jax
import pytest

from bitseg_jax.benchmarks import device
from bitseg_jax.runs import build

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not importlib.util.find_spec('libtpu'),
    reason="compiling for TPUs needs libtpu: pip install 'jax[tpu]'",
  ),
]


HOST = re.compile(r' (infeed|outfeed|send|recv)\(')


def compiled(config, name, what, fsdp=1):
  """(bytes by kind of collective, values in the parameters)."""
  chips = device.open_slice(name)
  config.model.dtype = 'bfloat16'
  config.train.batch_size = config.eval.batch_size = 2 * len(chips)
  config.train.fsdp = fsdp
  shapes = jax.eval_shape(build.build(config).init_params, jax.random.key(0))
  values = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  text = device.compile_and_tell(what, config, chips)[0].as_text()
  assert not HOST.search(text)
  found = device.collectives(text)
  return {kind: size for kind, (_, size) in found.items()}, values


@pytest.mark.parametrize('name', ['v5e:2x2', 'v5e:16x16'])
def test_a_step_sums_the_gradient_once(tiny_config, name):
  sizes, values = compiled(tiny_config, name, 'train')
  assert set(sizes) == {'all-reduce'}
  # Kernels' gradients cross in bfloat16, those of norms and biases in float32.
  assert 2 * values <= sizes['all-reduce'] <= 4.2 * values


def test_fsdp_gathers_parameters_and_no_activations(tiny_config):
  sizes, values = compiled(tiny_config, 'v5e:2x2', 'train', fsdp=4)
  # Once for the forward pass and once for the gradient, at most.
  assert values < sizes.pop('all-gather') <= 2 * 4 * values
  assert sizes.pop('all-reduce', 0) + sizes.pop('reduce-scatter', 0) <= (
    4.2 * values
  )
  assert sum(sizes.values()) < 0.1 * values


@pytest.mark.parametrize('name', ['v5e:2x2', 'v5e:16x16'])
def test_chips_sample_on_their_own(tiny_config, name):
  sizes, _ = compiled(tiny_config, name, 'sample')
  assert not sizes


def test_the_compiler_tells_of_memory_and_an_unknown_slice_is_refused(
  tiny_config,
):
  tiny_config.eval.batch_size = 8
  chips = device.open_slice('v5e:2x2')
  rows = device.compile_and_tell('sample', tiny_config, chips)[-1]
  found = {name: value for name, value, _ in rows}
  assert 0 < found['sample: memory, says the compiler'] < 16
  for name in 'v9:2x2', 'v5e', 'v5e:-1x2':
    with pytest.raises(ValueError, match='no such slice'):
      device.open_slice(name)
