"""Benchmarks on the devices: forward pass, training, sampling, codes.

Rates are given beside that of a matrix product measured in the same run. The
share of it tells how efficient a program is, whatever the machine.
"""

import contextlib
import pathlib
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from ml_collections import ConfigDict

from bitseg_jax.benchmarks.host import Rows
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build, compiling, devices
from bitseg_jax.training import step as train_step

_COLLECTIVES = 'all-reduce|reduce-scatter|all-gather|all-to-all'
_BYTES = {'f32': 4, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'pred': 1}


def seconds(call: Callable[[], Any], least: int = 3, budget: float = 10.0):
  """Returns the median seconds of a call, after a warm-up.

  It is timed `least` times, or up to 100 times within `budget` seconds.
  """
  jax.block_until_ready(call())
  times = []
  while len(times) < least or (sum(times) < budget and len(times) < 100):
    began = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - began)
  return float(np.median(times))


def matmul_rate(dtype: str) -> float:
  """Measures the FLOP/s of a square matrix product on all devices together."""
  side = 2048 if jax.default_backend() == 'cpu' else 8192
  mesh = devices.make_mesh()
  rows = devices.split_on(mesh)
  draw = lambda key: jax.random.normal(
    key, (jax.device_count() * side, side), dtype
  )
  matrices = jax.jit(draw, out_shardings=rows)(jax.random.key(0))
  # One product per device: a batched one is several times slower on CPU.
  product = jax.jit(
    jax.shard_map(
      lambda a: a @ a, mesh=mesh, in_specs=rows.spec, out_specs=rows.spec
    )
  )
  flops = 2 * side**3 * jax.device_count()
  return flops / seconds(lambda: product(matrices), least=10, budget=3)


def compile_program(function: Callable, *args: Any) -> tuple[Any, float]:
  """Returns (compiled program, seconds that tracing and compiling took)."""
  began = time.perf_counter()
  program = compiling.compile_ahead(function, *args)
  return program, time.perf_counter() - began


def flops_of(function: Callable, *args: Any) -> float:
  """Counts floating-point operations of a function, before any optimisation.

  JAX counts them for CPU alone, so CPU has to be among JAX_PLATFORMS. Nothing
  is compiled or computed there.
  """
  cpu = SingleDeviceSharding(jax.local_devices(backend='cpu')[0])
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
  lowered = jax.jit(function, in_shardings=cpu).lower(*shapes)
  return lowered.cost_analysis()['flops']


def collectives(program: str) -> dict[str, tuple[int, int]]:
  """Counts the communication between devices in a compiled program.

  Args:
    program: HLO text, as from `compiled.as_text()`.

  Returns:
    (count, bytes of the results) for each kind of collective.
  """
  counts, sizes = Counter(), Counter()
  pattern = rf' = (.*?) ({_COLLECTIVES})(?:-start)?\('
  for result, kind in re.findall(pattern, program):
    counts[kind] += 1
    for dtype, shape in re.findall(r'(\w+)\[([\d,]*)\]', result):
      values = np.prod([int(n) for n in shape.split(',') if n], dtype=int)
      sizes[kind] += int(values) * _BYTES.get(dtype, 8)
  return {kind: (counts[kind], sizes[kind]) for kind in counts}


def memory_of(program: Any) -> float:
  """Returns a program's GiB per device: arguments, results, temporaries."""
  need = program.memory_analysis()
  return (
    need.argument_size_in_bytes
    + need.output_size_in_bytes
    - need.alias_size_in_bytes
    + need.temp_size_in_bytes
  ) / 2**30


def reset_peak() -> None:
  """Resets the peak memory of the process, where the system allows it."""
  with contextlib.suppress(OSError):
    pathlib.Path('/proc/self/clear_refs').write_text('5')


def peak_rows(name: str) -> Rows:
  """Returns table rows with the peak memory since reset_peak, in GiB.

  It is the memory of a device if the device counts it, else of the process.
  """
  counted = jax.devices()[0].memory_stats()
  if counted:  # since the start of the program, as it cannot be reset
    peak = counted['peak_bytes_in_use'] / 2**30
    return [(f'{name}: peak memory of a device so far', peak, 'GiB')]
  status = pathlib.Path('/proc/self/status')
  if not status.exists():
    return []
  peak = re.search(r'VmHWM:\s*(\d+) kB', status.read_text())
  return [(f'{name}: peak memory', int(peak[1]) / 2**20, 'GiB')]


def trace(call: Callable[[], Any], folder: str) -> None:
  """Writes a profiler trace of one call for XProf, TensorBoard or Perfetto."""
  with jax.profiler.trace(folder):
    jax.block_until_ready(call())


def _rate_rows(name, unit, count, took, flops, peak):
  return [
    (f'{name}: {unit}', count / took, f'{unit}/s'),
    (f'{name}: rate', flops / took / 1e12, 'TFLOP/s'),
    (f'{name}: share of matmul', 100 * flops / took / peak, '%'),
  ]


def training_batch(
  config: ConfigDict, parts: build.Experiment, mesh: Mesh
) -> dict[str, jax.Array]:
  """Puts a batch of procedural scenes on the devices, to benchmark training."""
  size = parts.image_size
  scenes = ProceduralScenes(64, size, 12)
  batches = build.training_batches(config, [scenes], parts.palette, mesh)
  return devices.put_next(iter(batches), mesh, config.train.steps_per_call)


def _countable(config):
  """Builds the same parts without kernels whose work XLA cannot count."""
  plain = config.copy_and_resolve_references()
  plain.model.fused_attention = False
  return build.build(plain)


def measure_train(config: ConfigDict, peak: float, traces: str = '') -> Rows:
  """Benchmarks forward pass and training step at config.train.batch_size.

  Args:
    config: config of a run.
    peak: FLOP/s to compare with, see matmul_rate.
    traces: folder for a trace of one step; '' = none.

  Returns:
    The rows of the table.
  """
  parts = build.build(config)
  mesh = devices.make_mesh(config.train.fsdp)
  _, optimizer = build.make_optimizer(config.train)
  init, abstract = build.make_state(parts, optimizer, mesh)
  state = init(jax.random.key(0))
  batch, key = training_batch(config, parts, mesh), jax.random.key(1)
  corrupt_fn, _ = train_step.make_loss(config.diffusion, parts)
  together, size = config.train.steps_per_call, config.train.batch_size
  one = jax.tree.map(lambda a: a[0], batch) if together > 1 else batch
  inputs = jax.jit(corrupt_fn)(one, key)
  args = state.params, inputs['z_t'], inputs['image'], inputs['t']
  flops = flops_of(_countable(config).denoise, *args)
  denoise = jax.jit(parts.denoise, compiler_options=compiling.options(mesh))
  forward, _ = compile_program(denoise, *args)
  rows = [('forward: work', flops / size / 1e9, 'GFLOP/image')]
  took = seconds(lambda: forward(*args))
  rows += _rate_rows('forward', 'images', size, took, flops, peak)
  step_fn = train_step.make_step_fn(config, parts, optimizer, mesh, abstract)
  program, took_to_compile = compile_program(step_fn, state, batch, key)

  def step():
    nonlocal state
    state, values = program(state, batch, key)
    return values

  reset_peak()
  # Forward, backward by inputs and backward by weights: three times the work.
  took = seconds(step) / together
  rows += _rate_rows('train', 'images', size, took, 3 * flops, peak)
  rows += peak_rows('train')
  rows += [
    ('train: memory, says the compiler', memory_of(program), 'GiB'),
    ('train: compiling', took_to_compile, 's'),
  ]
  for kind, (count, nbytes) in collectives(program.as_text()).items():
    rows += [
      (f'train: {kind} in the program', count, ''),
      (f'train: {kind} in the program, bytes', nbytes / 2**20, 'MiB'),
    ]
  if traces:
    trace(step, f'{traces}/train')
  return rows


def measure_sample(config: ConfigDict, peak: float, traces: str = '') -> Rows:
  """Benchmarks the sampler at config.eval.batch_size, and code probabilities.

  The arguments and the returned rows are those of measure_train.
  """
  parts, mesh = build.build(config), devices.make_mesh()
  sample_fn = draw_samples.make_sample_fn(parts, config.sample, mesh)
  params = jax.jit(parts.init_params)(jax.random.key(0))
  rows_of_batch = config.eval.batch_size
  side = parts.image_size
  scenes = ProceduralScenes(rows_of_batch, side, 12)
  image = np.stack([scenes[i]['image'] for i in range(rows_of_batch)])
  sizes = np.full((rows_of_batch, 2), side, np.int32)
  args = (
    params,
    *devices.put_batch((image, sizes), mesh),
    jax.random.split(jax.random.key(1), rows_of_batch),
  )
  z_t = jnp.zeros((1, side, side, parts.codec.channels))
  once = flops_of(
    _countable(config).denoise,
    params,
    z_t,
    jnp.zeros((1, side, side, 3)),
    jnp.zeros(1),
  )
  branches = 2 if config.sample.guidance_weight else 1
  flops = once * branches * config.sample.num_steps * rows_of_batch
  program, took_to_compile = compile_program(sample_fn, *args)
  reset_peak()
  took = seconds(lambda: program(*args))
  rows = peak_rows('sample')
  rows += _rate_rows('sample', 'samples', rows_of_batch, took, flops, peak)
  if traces:
    trace(lambda: program(*args), f'{traces}/sample')
  x_hat = jnp.tanh(
    jax.random.normal(jax.random.key(2), (8, side, side, parts.codec.channels))
  )
  probabilities = jax.jit(parts.codec.probabilities)
  return [
    *rows,
    ('sample: memory, says the compiler', memory_of(program), 'GiB'),
    ('sample: compiling', took_to_compile, 's'),
    (
      'code probabilities of 8 images',
      1e3 * seconds(lambda: probabilities(x_hat), budget=2),
      'ms',
    ),
  ]
