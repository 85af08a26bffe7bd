"""Programs compiled for TPUs send the gradient once, and no activations."""

import importlib.util

import jax
import pytest

from bitseg_jax.benchmarks import hlo_traffic, topology

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not importlib.util.find_spec('libtpu'),
    reason="compiling for TPUs needs libtpu: pip install 'bitseg-jax[tpu]'",
  ),
]


def compiled(config, name, build, fsdp=1):
  """(counts of the program of a slice, values in the parameters)."""
  _, devices = topology.open_slice(name)
  config.model.dtype = 'bfloat16'
  config.train.batch_size = config.eval.batch_size = 2 * len(devices)
  config.train.fsdp = fsdp
  shapes = jax.eval_shape(build.build(config).init_params, jax.random.key(0))
  values = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  return hlo_traffic.count(build(config, devices).as_text()), values


@pytest.mark.parametrize('name', ['v5e:2x2', 'v5e:16x16'])
def test_a_step_sums_the_gradient_once(tiny_config, name):
  found, values = compiled(tiny_config, name, topology.compile_step)
  assert set(found.collectives) == {'all-reduce'} and not found.host
  _, size = found.collectives['all-reduce']
  # Kernels' gradients cross in bfloat16, those of norms and biases in float32.
  assert 2 * values <= size <= 4.2 * values


def test_fsdp_gathers_parameters_and_no_activations(tiny_config):
  step = topology.compile_step
  found, values = compiled(tiny_config, 'v5e:2x2', step, fsdp=4)
  sizes = {kind: size for kind, (_, size) in found.collectives.items()}
  # Once for the forward pass and once for the gradient, at most.
  assert values < sizes.pop('all-gather') <= 2 * 4 * values
  assert sizes.pop('all-reduce', 0) + sizes.pop('reduce-scatter', 0) <= (
    4.2 * values
  )
  assert sum(sizes.values()) < 0.1 * values and not found.host


@pytest.mark.parametrize('name', ['v5e:2x2', 'v5e:16x16'])
def test_chips_sample_on_their_own(tiny_config, name):
  found, _ = compiled(tiny_config, name, topology.compile_sampler)
  assert not found.collectives and not found.host


def test_a_convolution_that_xla_compiled_is_counted(tiny_config):
  _, devices = topology.open_slice('v5e:2x2')
  where = jax.sharding.SingleDeviceSharding(devices[0])
  image = jax.ShapeDtypeStruct((8, 128, 128, 128), 'bfloat16', sharding=where)
  kernel = jax.ShapeDtypeStruct((3, 3, 128, 128), 'bfloat16', sharding=where)
  convolve = lambda x, k: jax.lax.conv_general_dilated(
    x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  program = jax.jit(convolve).lower(image, kernel).compile()
  found = hlo_traffic.count(program.as_text())
  assert found.flops == 2 * 8 * (3 * 128 - 2) ** 2 * 128 * 128
  assert found.flops == pytest.approx(program.cost_analysis()['flops'], 0.01)
  moved = 2 * (2 * image.size + kernel.size)
  assert found.moved + found.aside == pytest.approx(moved, rel=0.01)
