"""Programs compiled for TPUs send the gradient once, and no activations."""

import importlib.util
import re

import jax
import pytest

from bitseg_jax.benchmarks import device, topology
from bitseg_jax.runs import build

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not importlib.util.find_spec('libtpu'),
    reason="compiling for TPUs needs libtpu: pip install 'jax[tpu]'",
  ),
]


HOST = re.compile(r' (infeed|outfeed|send|recv)\(')


def compiled(config, name, compile_it, fsdp=1):
  """(bytes by kind of collective, values in the parameters)."""
  _, chips = topology.open_slice(name)
  config.model.dtype = 'bfloat16'
  config.train.batch_size = config.eval.batch_size = 2 * len(chips)
  config.train.fsdp = fsdp
  shapes = jax.eval_shape(build.build(config).init_params, jax.random.key(0))
  values = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  text = compile_it(config, chips).as_text()
  assert not HOST.search(text)
  found = device.collectives(text)
  return {kind: size for kind, (_, size) in found.items()}, values


@pytest.mark.parametrize('name', ['v5e:2x2', 'v5e:16x16'])
def test_a_step_sums_the_gradient_once(tiny_config, name):
  sizes, values = compiled(tiny_config, name, device.compile_step)
  assert set(sizes) == {'all-reduce'}
  # Kernels' gradients cross in bfloat16, those of norms and biases in float32.
  assert 2 * values <= sizes['all-reduce'] <= 4.2 * values


def test_fsdp_gathers_parameters_and_no_activations(tiny_config):
  step = device.compile_step
  sizes, values = compiled(tiny_config, 'v5e:2x2', step, fsdp=4)
  # Once for the forward pass and once for the gradient, at most.
  assert values < sizes.pop('all-gather') <= 2 * 4 * values
  assert sizes.pop('all-reduce', 0) + sizes.pop('reduce-scatter', 0) <= (
    4.2 * values
  )
  assert sum(sizes.values()) < 0.1 * values


@pytest.mark.parametrize('name', ['v5e:2x2', 'v5e:16x16'])
def test_chips_sample_on_their_own(tiny_config, name):
  sizes, _ = compiled(tiny_config, name, device.compile_sampler)
  assert not sizes


def test_the_table_of_a_slice_is_whole(tiny_config):
  rows = topology.measure('sample', tiny_config, 'v5e:2x2')
  found = {name: value for name, value, _ in rows}
  assert found['sample: images per chip'] == 2
  assert found['sample: time that interconnect take'] == 0
  assert 0 < found['sample: memory, says the compiler'] < 16
