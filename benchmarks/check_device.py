"""Checks an accelerator against the CPU and against the authors' values.

JAX_PLATFORMS=cuda,cpu PYTHONPATH=. python benchmarks/check_device.py

Prints three differences and fails if one is too large: of the network's output
from what the authors' code gave, of loss and gradient of one training step from
those on CPU, and of the sampler's codes from those on CPU. Float32 products are
computed in full, not in the shorter TF32 that GPUs take by default.
"""

import sys

import jax
import numpy as np

from bitseg_jax.configs import quickstart
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build, devices, official
from bitseg_jax.training.step import make_step
from tests import recorded
from tests.batches import training_batch


def golden_difference() -> float:
  """Largest difference of the network's output from the recorded one."""
  tensors, config = recorded.official_model()
  expected = build.abstract_params(config)
  params = official.from_official(tensors, expected, config)
  golden = np.load(recorded.UNET)
  last = lambda name: np.moveaxis(golden[name], 1, -1)
  model = build.build(config).model
  out = jax.jit(model.apply)(
    {'params': params}, last('x'), last('image'), golden['t']
  )
  return float(np.abs(np.tanh(out) - last('y')).max())


def step_and_codes(chips: list[jax.Device]) -> tuple[float, float, np.ndarray]:
  """(loss, gradient norm, codes of 8 samples) of the quickstart's network."""
  config = quickstart.get_config()
  config.sample.num_steps = 2
  parts, mesh = build.build(config), devices.make_mesh(1, chips)
  with jax.default_device(chips[0]):
    _, optimizer = build.make_optimizer(config)
    init, abstract = build.make_state(parts, optimizer, mesh)
    state = init(jax.random.key(0))
    # With the zeros that blocks begin with, most would not be computed.
    noisy = lambda x: x + 0.05 * jax.random.normal(jax.random.key(1), x.shape)
    state = state.replace(params=jax.tree.map(noisy, state.params))
    state = jax.device_put(state, devices.shardings(abstract))
    batch = training_batch(config, parts, mesh)
    options = build.SamplerOptions(**config.sample)
    draw = draw_samples.make_functions(parts, options, mesh)
    count = len(batch['image'])
    size = np.full((count, 2), parts.code_size, np.int32)
    labels = np.stack([np.arange(count), np.arange(count)], 1).astype(np.int32)
    size, labels = devices.put_batch((size, labels), mesh)
    seen = draw.encode(state.params, batch['image'])
    x_hat = draw.sample(state.params, seen, size, labels, np.uint32(2))
    codes = np.asarray(parts.codec.decode(x_hat))
    recipe, placed = build.make_recipe(config), devices.shardings(abstract)
    step = make_step(parts, recipe, optimizer, mesh, placed)
    key = jax.device_put(jax.random.key(3), devices.copied_on(mesh))
    _, values = step(state, batch, key)
  return float(values['loss']), float(values['grad_norm']), codes


def main() -> int:
  """Prints the table; returns 1 if something differs by too much."""
  jax.config.update('jax_default_matmul_precision', 'highest')
  here, cpu = jax.devices()[:1], jax.devices('cpu')[:1]
  print(f'{here[0].device_kind} beside {cpu[0].device_kind}')
  loss, norm, codes = step_and_codes(here)
  loss_cpu, norm_cpu, codes_cpu = step_and_codes(cpu)
  rows = [
    ("network: largest difference from authors'", golden_difference(), 1e-4),
    ('training step: loss, relative', abs(loss / loss_cpu - 1), 1e-4),
    ('training step: gradient, relative', abs(norm / norm_cpu - 1), 1e-3),
    ('sampler: share of other codes', np.mean(codes != codes_cpu), 1e-2),
  ]
  for name, value, most in rows:
    print(f'{name:46} {value:.2g} (at most {most:g})')
  return int(any(not value <= most for _, value, most in rows))


if __name__ == '__main__':
  sys.exit(main())
