"""Benchmarks on the devices: a training step and the sampler.

Rates are given beside that of a matrix product measured in the same run. The
share of it tells how efficient a program is, whatever the machine. For TPUs
that are not there programs are compiled only, see open_slice.
"""

import collections
import importlib.util
import math
import os
import re
import time
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from bitseg_jax.benchmarks.host import Rows
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build, devices, programs
from bitseg_jax.training.step import make_step

# Of a training step, whole samples, what is seen of photos, single denoisings.
UNITS = {
  'train': 'images',
  'sample': 'samples',
  'encode': 'photos',
  'denoise': 'evaluations',
}
_KINDS = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'


def seconds(call: Callable[[], Any]) -> float:
  """Returns the median seconds of a call, after a warm-up."""
  timer = timeit.Timer(lambda: jax.block_until_ready(call()))
  timer.timeit(1)
  count, _ = timer.autorange()  # calls that take a fifth of a second
  return float(np.median(timer.repeat(3, count))) / count


def matmul_rate(dtype: str) -> float:
  """Measures the FLOP/s of a square matrix product on all devices together."""
  side = 2048 if jax.default_backend() == 'cpu' else 8192
  mesh, count = devices.make_mesh(), jax.device_count()
  rows = devices.split_on(mesh)
  draw = lambda key: jax.random.normal(key, (count * side, side), dtype)
  matrices = jax.jit(draw, out_shardings=rows)(jax.random.key(0))
  # One product per device: a batched one is several times slower on CPU.
  specs = {'in_specs': rows.spec, 'out_specs': rows.spec}
  product = jax.jit(jax.shard_map(lambda a: a @ a, mesh=mesh, **specs))
  return 2 * side**3 * count / seconds(lambda: product(matrices))


def work(config: ConfigDict) -> dict[str, float]:
  """Counts the FLOPs of one of the units of each of UNITS.

  They are counted before any optimisation, which JAX does for CPU alone: it has
  to be among JAX_PLATFORMS. In a training step the gradients by inputs and by
  weights take as much each as the forward pass (also of a frozen encoder, which
  is too much). A sample is counted without the encoder.
  """
  parts = build.build(config)
  cpu = SingleDeviceSharding(jax.local_devices(backend='cpu')[0])

  def count(function, *shapes):
    lowered = jax.jit(function, in_shardings=cpu).lower(*shapes)
    return lowered.cost_analysis()['flops']

  params = jax.eval_shape(parts.init_params, jax.random.key(0))
  photos = _shape((1, *2 * [parts.image_size], 3), jnp.uint8)
  z_t = _shape((1, *2 * [parts.code_size], parts.codec.channels))
  seen = jax.eval_shape(parts.encode, params, photos)
  encode = count(parts.encode, params, photos)
  denoise = count(parts.denoise, params, z_t, seen, _shape((1,)))
  branches = 1 + bool(config.sample.guidance_weight)
  return {
    'train': 3 * (encode + config.train.draws * denoise),
    'sample': config.sample.num_steps * branches * denoise,
    'encode': encode,
    'denoise': denoise,
  }


def collectives(program: str) -> dict[str, tuple[int, int]]:
  """Counts the communication between devices in a compiled program's text.

  Returns (count, bytes of the results) for each kind of collective.
  """
  found = collections.defaultdict(dict)
  pattern = rf' = (.*?) ({_KINDS})(-start)?\((.*)'
  for i, match in enumerate(re.finditer(pattern, program)):
    result, kind, start, rest = match.groups()
    sizes = [
      math.prod(map(int, re.findall(r'\d+', shape))) * int(bits or 8) // 8
      for bits, shape in re.findall(r'[a-z]+(\d*)\[([\d,]*)\]', result)
    ]
    # The start of a gathering names its operand before its result.
    size = max(sizes) if start and kind == 'all-gather' else sum(sizes)
    # One that runs beside other operations is written in each fusion with one
    # of them, always with the same channel.
    channel = re.search(r'channel_id=(\d+)', rest)
    found[kind][channel[1] if channel else f'number {i}'] = size
  return {k: (len(sizes), sum(sizes.values())) for k, sizes in found.items()}


def open_slice(name: str) -> list[jax.Device]:
  """Opens TPUs that are not there, such as v5e:2x2, to compile for.

  libtpu compiles for any slice on a machine without TPUs.

  Raises:
    ValueError: if there is no such slice, or no libtpu.
  """
  if not importlib.util.find_spec('libtpu'):
    raise ValueError(f"--topology={name}: pip install 'jax[tpu]' for libtpu")
  # libtpu would ask the machine about its TPUs; and two may compile at once.
  for key, value in {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': 'true',
  }.items():
    os.environ.setdefault(key, value)
  # A v4 has two cores, which programs see as one device: a "megacore".
  more = {'chip_config_name': 'megacore'} if name.startswith('v4:') else {}
  try:
    return list(topologies.get_topology_desc(name, 'tpu', **more).devices)
  except RuntimeError as error:
    raise ValueError(
      f'--topology={name}: no such slice ({str(error).splitlines()[0]}); give '
      'one such as v5e:2x2, v6e:4x4, v5p:2x2x1 or v4:2x2x1'
    ) from error


def _section(what):  # of a config, that has the batch size
  return 'train' if what == 'train' else 'eval'


def to_compile(
  what: str, config: ConfigDict, chips: Sequence[jax.Device]
) -> tuple[Callable, tuple]:
  """Returns one of UNITS of a config, jitted, and shapes of its arguments.

  The batch is over all chips, which may be there or not, see open_slice.
  """
  train, section = what == 'train', _section(what)
  count, parts = config[section].batch_size, build.build(config)
  accumulate = config.train.accumulate if train else 1
  devices.check_devices(f'{section}.batch_size', count, accumulate, len(chips))
  mesh = devices.make_mesh(config.train.fsdp if train else 1, list(chips))
  rows, grid = devices.split_on(mesh), (count, *2 * [parts.code_size])
  photos = _shape((count, *2 * [parts.image_size], 3), jnp.uint8, rows)
  if train:
    _, optimizer = build.make_optimizer(config)
    _, abstract = build.make_state(parts, optimizer, mesh)
    placed, recipe = devices.shardings(abstract), build.make_recipe(config)
    batch = {'image': photos, 'codes': _shape(grid, jnp.int16, rows)}
    key = _shape((), jax.random.key(0).dtype, devices.copied_on(mesh))
    step = make_step(parts, recipe, optimizer, mesh, placed)
    return step, (abstract, batch, key)
  options = build.SamplerOptions(**config.sample)
  encode, sample = draw_samples.make_functions(parts, options, mesh)
  params = devices.placed(build.abstract_params(config), mesh)
  if what == 'encode':
    return encode, (params, photos)
  seen = jax.eval_shape(parts.encode, params, photos)
  seen = _shape(seen.shape, seen.dtype, rows)
  if what == 'denoise':
    z_t = _shape((*grid, parts.codec.channels), where=rows)
    fast = devices.compiler_options(mesh)
    denoise = jax.jit(parts.denoise, compiler_options=fast)
    return denoise, (params, z_t, seen, _shape((count,), where=rows))
  pairs = _shape((count, 2), jnp.int32, rows)  # sizes, and labels
  seed = _shape((), jnp.uint32, devices.copied_on(mesh))
  return sample, (params, seen, pairs, pairs, seed)


def _shape(shape, dtype=jnp.float32, where=None):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def compile_and_tell(
  what: str, config: ConfigDict, chips: Sequence[jax.Device]
) -> tuple[Any, tuple, Rows]:
  """Compiles one of UNITS.

  Returns:
    (the program, the shapes of its arguments, what the compiler says).
  """
  began = time.perf_counter()
  function, shapes = to_compile(what, config, chips)
  program = programs.compile_ahead(function, *shapes)
  took = time.perf_counter() - began
  flops = config[_section(what)].batch_size / len(chips) * work(config)[what]
  need = program.memory_analysis()
  used = need.argument_size_in_bytes + need.temp_size_in_bytes
  used += need.output_size_in_bytes - need.alias_size_in_bytes
  rows = [
    ('compiling', took, 's'),
    ('work of each device', flops / 1e9, 'GFLOP'),
    ('memory, says the compiler', used / 2**30, 'GiB'),
  ]
  for kind, (count, size) in collectives(program.as_text()).items():
    rows.append((f'{kind} in the program', count, ''))
    rows.append((f'{kind} in the program, bytes', size / 2**20, 'MiB'))
  return program, shapes, [(f'{what}: {name}', *row) for name, *row in rows]


def measure(
  what: str, config: ConfigDict, peak: float, traces: str = ''
) -> Rows:
  """Benchmarks a program and its compiling.

  Args:
    what: which of UNITS.
    config: config of a run.
    peak: FLOP/s to compare with, see matmul_rate.
    traces: folder for a trace of one call; '' = none.
  """
  program, shapes, said = compile_and_tell(what, config, jax.devices())

  def fill(shape):
    key = jax.random.key(0)
    if jnp.issubdtype(shape.dtype, jnp.floating):
      return jax.random.uniform(key, shape.shape, shape.dtype, 0, 0.05)
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
      return key
    return jnp.zeros(shape.shape, shape.dtype)

  fill_all = lambda: jax.tree.map(fill, shapes)
  args = jax.jit(fill_all, out_shardings=devices.shardings(shapes))()

  def call():
    nonlocal args
    results = program(*args)
    if what == 'train':  # it takes the state, and gives the next
      state, results = results
      args = state, *args[1:]
    return results

  unit, rate = UNITS[what], config[_section(what)].batch_size / seconds(call)
  flops = rate * work(config)[what]
  if traces:  # for XProf, TensorBoard or Perfetto
    with jax.profiler.trace(f'{traces}/{what}'):
      jax.block_until_ready(call())
  return [
    (f'{what}: {unit}', rate, f'{unit}/s'),
    (f'{what}: rate', flops / 1e12, 'TFLOP/s'),
    (f'{what}: share of matmul', 100 * flops / peak, '%'),
    *said,
  ]
