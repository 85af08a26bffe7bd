"""Benchmarks on the devices: one evaluation of the network, training, sampling.

Rates are given beside that of a matrix product measured in the same run. The
share of it tells how efficient a program is, whatever the machine.
"""

import re
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from ml_collections import ConfigDict

from bitseg_jax.benchmarks.host import Rows
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build, devices
from bitseg_jax.training import step as train_step

_COLLECTIVES = (
  'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'
)
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
  mesh, count = devices.make_mesh(), jax.device_count()
  rows = devices.split_on(mesh)
  draw = lambda key: jax.random.normal(key, (count * side, side), dtype)
  matrices = jax.jit(draw, out_shardings=rows)(jax.random.key(0))
  # One product per device: a batched one is several times slower on CPU.
  product = jax.jit(
    jax.shard_map(
      lambda a: a @ a, mesh=mesh, in_specs=rows.spec, out_specs=rows.spec
    )
  )
  took = seconds(lambda: product(matrices), least=10, budget=3)
  return 2 * side**3 * count / took


def flops_of(function: Callable, *args: Any) -> float:
  """Counts floating-point operations of a function, before any optimisation.

  JAX counts them for CPU alone, so CPU has to be among JAX_PLATFORMS. Nothing
  is compiled or computed there. The body of a loop is counted once.
  """
  cpu = SingleDeviceSharding(jax.local_devices(backend='cpu')[0])
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
  lowered = jax.jit(function, in_shardings=cpu).lower(*shapes)
  return lowered.cost_analysis()['flops']


def work(what: str, config: ConfigDict) -> float:
  """Counts the FLOPs per image of one training step, or of one sample.

  A step takes the forward pass, and as much again for the gradient by the
  inputs and by the weights; a sample as many passes as steps and branches of
  the guidance.
  """
  config = config.copy_and_resolve_references()
  config.model.fused_attention = False  # whose work XLA cannot count
  parts = build.build(config)
  params = jax.eval_shape(parts.init_params, jax.random.key(0))
  once = flops_of(parts.denoise, params, *network_inputs(parts, 1))
  if what == 'train':
    return 3 * once
  branches = 2 if config.sample.guidance_weight else 1
  return once * branches * config.sample.num_steps


def collectives(program: str) -> dict[str, tuple[int, int]]:
  """Counts the communication between devices in a compiled program's text.

  Returns:
    (count, bytes of the results) for each kind of collective.
  """
  found: dict[tuple[str, str], int] = {}
  pattern = rf' = (.*?) ({_COLLECTIVES})(-start)?\((.*)'
  for i, match in enumerate(re.finditer(pattern, program)):
    result, kind, start, rest = match.groups()
    sizes = [
      int(np.prod([int(n) for n in shape.split(',') if n], dtype=int))
      * _BYTES.get(dtype, 8)
      for dtype, shape in re.findall(r'(\w+)\[([\d,]*)\]', result)
    ]
    # The start of a gathering names its operand before its result.
    size = max(sizes) if start and kind == 'all-gather' else sum(sizes)
    # One that runs beside other operations is written in each fusion with one
    # of them, always with the same channel.
    channel = re.search(r'channel_id=(\d+)', rest)
    found[kind, channel[1] if channel else f'number {i}'] = size
  totals: dict[str, tuple[int, int]] = {}
  for (kind, _), size in found.items():
    count, total = totals.get(kind, (0, 0))
    totals[kind] = count + 1, total + size
  return totals


def network_inputs(parts: build.Experiment, count: int) -> tuple:
  """Makes (z_t, photos, t) for one evaluation of the network."""
  square = count, parts.image_size, parts.image_size
  z_t = jax.random.normal(jax.random.key(0), (*square, parts.codec.channels))
  photos = jax.random.normal(jax.random.key(1), (*square, 3))
  return z_t, photos, jnp.full(count, 0.5)


def training_batch(
  config: ConfigDict, parts: build.Experiment, mesh: Mesh
) -> dict[str, jax.Array]:
  """Puts a batch of procedural scenes on the devices, to benchmark training."""
  scenes = ProceduralScenes(64, parts.image_size, 12)
  batches = build.training_batches(config, [scenes], parts.palette, mesh)
  return devices.put_next(iter(batches), mesh, config.train.steps_per_call)


def compile_step(config: ConfigDict, chips: Sequence[jax.Device]) -> Any:
  """Compiles the training step of a config.

  Args:
    config: config of a run; its batch is over all chips.
    chips: devices, there or not (see topology.py).

  Returns:
    The compiled program.

  Raises:
    ValueError: if the batch does not divide or does not fit.
  """
  train, size = config.train, config.data.image_size
  devices.check_devices(
    'train.batch_size', train.batch_size, train.accumulate, len(chips)
  )
  parts, mesh = build.build(config), devices.make_mesh(train.fsdp, list(chips))
  _, optimizer = build.make_optimizer(train)
  _, abstract = build.make_state(parts, optimizer, mesh)
  step = train_step.make_step_fn(config, parts, optimizer, mesh, abstract)
  stacked = train.steps_per_call > 1
  square = train.batch_size, size, size
  square = (train.steps_per_call, *square) if stacked else square
  rows = devices.split_on(mesh, stacked)
  batch = {
    'image': _abstract((*square, 3), jnp.uint8, rows),
    'codes': _abstract(square, jnp.int16, rows),
  }
  key = _abstract((), jax.random.key(0).dtype, devices.copied_on(mesh))
  return _compile(step, abstract, batch, key)


def compile_sampler(config: ConfigDict, chips: Sequence[jax.Device]) -> Any:
  """Compiles the sampler, with decoding; see compile_step."""
  count, size = config.eval.batch_size, config.data.image_size
  devices.check_devices('eval.batch_size', count, devices=len(chips))
  parts, mesh = build.build(config), devices.make_mesh(1, list(chips))
  rows = devices.split_on(mesh)
  return _compile(
    draw_samples.make_codes_fn(parts, config.sample, mesh),
    build.abstract_params(parts, mesh),
    _abstract((count, size, size, 3), jnp.uint8, rows),
    _abstract((count, 2), jnp.int32, rows),
    _abstract((count,), jax.random.key(0).dtype, rows),
  )


def _abstract(shape, dtype, where):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def _compile(function, *args):
  try:
    with warnings.catch_warnings():
      # JAX's cache keeps what is compiled for a TPU, but only one can load it.
      warnings.filterwarnings('ignore', 'Error reading persistent compilation')
      return devices.compile_ahead(function, *args)
  except RuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    reason = str(error).splitlines()[0].partition(': ')[2]
    raise ValueError(f'the batch does not fit: {reason}') from error


def said_of(what: str, program: Any, began: float) -> Rows:
  """Returns table rows of what the compiler says of a program.

  Args:
    what: first word of the rows.
    program: the compiled program.
    began: time.perf_counter() before it was compiled.
  """
  need = program.memory_analysis()
  used = need.argument_size_in_bytes + need.temp_size_in_bytes
  used += need.output_size_in_bytes - need.alias_size_in_bytes
  rows = [
    (f'{what}: compiling', time.perf_counter() - began, 's'),
    (f'{what}: memory, says the compiler', used / 2**30, 'GiB'),
  ]
  for kind, (count, size) in collectives(program.as_text()).items():
    rows += [
      (f'{what}: {kind} in the program', count, ''),
      (f'{what}: {kind} in the program, bytes', size / 2**20, 'MiB'),
    ]
  return rows


def _rate(what, unit, count, took, flops, peak):
  """Rows of `count` units in `took` seconds, `flops` each, and of memory."""
  flops *= count / took
  stats = jax.devices()[0].memory_stats()
  used = stats['peak_bytes_in_use'] / 2**30 if stats else None
  if not stats:  # a CPU: that of the process, in KiB on Linux
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  return [
    (f'{what}: {unit}', count / took, f'{unit}/s'),
    (f'{what}: rate', flops / 1e12, 'TFLOP/s'),
    (f'{what}: share of matmul', 100 * flops / peak, '%'),
    (f'{what}: peak memory so far', used, 'GiB'),
  ]


def _trace(call, folder):
  """Writes a trace of one call for XProf, TensorBoard or Perfetto."""
  with jax.profiler.trace(folder):
    jax.block_until_ready(call())


def measure_train(config: ConfigDict, peak: float, traces: str = '') -> Rows:
  """Benchmarks forward pass and training step at config.train.batch_size.

  Args:
    config: config of a run.
    peak: FLOP/s to compare with, see matmul_rate.
    traces: folder for a trace of one step; '' = none.

  Returns:
    The rows of the table.
  """
  count, began = config.train.batch_size, time.perf_counter()
  program = compile_step(config, jax.devices())
  said = said_of('train', program, began)
  parts, mesh = build.build(config), devices.make_mesh(config.train.fsdp)
  _, optimizer = build.make_optimizer(config.train)
  state = build.make_state(parts, optimizer, mesh)[0](jax.random.key(0))
  batch, key = training_batch(config, parts, mesh), jax.random.key(1)
  forward = jax.jit(
    parts.denoise, compiler_options=devices.compiler_options(mesh)
  )
  inputs = devices.put_batch(network_inputs(parts, count), mesh)
  flops = work('train', config)
  rows = [('forward: work', flops / 3e9, 'GFLOP/image')]
  took = seconds(lambda: forward(state.params, *inputs))
  rows += _rate('forward', 'images', count, took, flops / 3, peak)

  def step():
    nonlocal state
    state, values = program(state, batch, key)
    return values

  took = seconds(step) / config.train.steps_per_call
  rows += _rate('train', 'images', count, took, flops, peak)
  if traces:
    _trace(step, f'{traces}/train')
  return rows + said


def measure_sample(config: ConfigDict, peak: float, traces: str = '') -> Rows:
  """Benchmarks the sampler at config.eval.batch_size; see measure_train."""
  began = time.perf_counter()
  program = compile_sampler(config, jax.devices())
  said = said_of('sample', program, began)
  parts = build.build(config)
  params = jax.jit(parts.init_params)(jax.random.key(0))
  count, side = config.eval.batch_size, parts.image_size
  scenes = ProceduralScenes(count, side, 12)
  batch = (
    np.stack([scenes[i]['image'] for i in range(count)]),
    np.full((count, 2), side, np.int32),
    jax.random.split(jax.random.key(1), count),
  )
  args = jax.device_put((params, *batch), program.input_shardings[0])
  took = seconds(lambda: program(*args))
  rows = _rate('sample', 'samples', count, took, work('sample', config), peak)
  if traces:
    _trace(lambda: program(*args), f'{traces}/sample')
  return rows + said
