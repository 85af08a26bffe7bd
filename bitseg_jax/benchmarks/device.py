"""Benchmarks on the devices: a training step, the sampler, and a photo.

Rates are given beside that of a matrix product measured in the same run. The
share of it tells how efficient a program is, whatever the machine.
"""

import collections
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from ml_collections import ConfigDict

from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.benchmarks.host import Rows
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build, devices, weights
from bitseg_jax.training.step import make_step

_COLLECTIVES = (
  'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'
)


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
  specs = {'in_specs': rows.spec, 'out_specs': rows.spec}
  product = jax.jit(jax.shard_map(lambda a: a @ a, mesh=mesh, **specs))
  took = seconds(lambda: product(matrices), least=10, budget=3)
  return 2 * side**3 * count / took


def flops_of(function: Callable, *args: Any) -> float:
  """Counts floating-point operations of a function, before any optimisation.

  JAX counts them for CPU alone, which has to be among JAX_PLATFORMS; nothing is
  compiled or computed. The body of a loop is counted once.
  """
  cpu = SingleDeviceSharding(jax.local_devices(backend='cpu')[0])
  shapes = jax.eval_shape(lambda *values: values, *args)
  lowered = jax.jit(function, in_shardings=cpu).lower(*shapes)
  return lowered.cost_analysis()['flops']


def work(config: ConfigDict) -> dict[str, float]:
  """Counts the FLOPs of an image that is to 'train', and of one to 'sample'.

  In a training step the gradients by inputs and by weights take as much each as
  the forward pass (also of a frozen encoder, which is too much). A sample is
  counted without the encoder.
  """
  config = config.copy_and_resolve_references()
  config.model.fused_attention = False  # whose work XLA cannot count
  parts = build.build(config)
  params = jax.eval_shape(parts.init_params, jax.random.key(0))
  photos, z_t, t = network_inputs(parts, 1)
  seen = jax.eval_shape(parts.encode, params, photos)
  encode = flops_of(parts.encode, params, photos)
  denoise = flops_of(parts.denoise, params, z_t, seen, t)
  branches = 1 + bool(config.sample.guidance_weight)
  return {
    'train': 3 * (encode + config.train.draws * denoise),
    'sample': config.sample.num_steps * branches * denoise,
  }


def collectives(program: str) -> dict[str, tuple[int, int]]:
  """Counts the communication between devices in a compiled program's text.

  Returns (count, bytes of the results) for each kind of collective.
  """
  found = collections.defaultdict(dict)
  pattern = rf' = (.*?) ({_COLLECTIVES})(-start)?\((.*)'
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


def compile_and_tell(
  what: str, config: ConfigDict, chips: Sequence[jax.Device]
) -> tuple[Any, Rows]:
  """Compiles 'train' or 'sample'; (the program, what the compiler says)."""
  began = time.perf_counter()
  compile_it = compile_step if what == 'train' else compile_sampler
  program = compile_it(config, chips)
  need = program.memory_analysis()
  used = need.argument_size_in_bytes + need.temp_size_in_bytes
  used += need.output_size_in_bytes - need.alias_size_in_bytes
  rows = [
    ('compiling', time.perf_counter() - began, 's'),
    ('memory, says the compiler', used / 2**30, 'GiB'),
  ]
  for kind, (count, size) in collectives(program.as_text()).items():
    rows.append((f'{kind} in the program', count, ''))
    rows.append((f'{kind} in the program, bytes', size / 2**20, 'MiB'))
  return program, [(f'{what}: {name}', *row) for name, *row in rows]


def network_inputs(parts: build.Experiment, count: int) -> tuple:
  """Makes (photos, z_t, t) of `count` images."""
  side, code_side = parts.image_size, parts.code_size
  scenes = ProceduralScenes(count, side, 12)
  photos = np.stack([scenes[i]['image'] for i in range(count)])
  shape = count, code_side, code_side, parts.codec.channels
  z_t = jax.random.normal(jax.random.key(0), shape)
  return photos, z_t, jnp.full(count, 0.5)


def noisy_params(params: Any, size: float = 0.05) -> Any:
  """Adds noise to parameters: the zeros that blocks begin with hide much."""
  add = lambda x: x + size * jax.random.normal(jax.random.key(1), x.shape)
  return jax.jit(lambda tree: jax.tree.map(add, tree))(params)


def training_batch(
  config: ConfigDict, parts: build.Experiment, mesh: Mesh
) -> dict[str, jax.Array]:
  """Puts a batch of procedural scenes on the devices, to benchmark training."""
  scenes = ProceduralScenes(64, parts.image_size, 12)
  batches = build.training_batches(config, [scenes], parts.palette, mesh)
  return devices.put_next(iter(batches), mesh, config.train.steps_per_call)


def compile_step(config: ConfigDict, chips: Sequence[jax.Device]) -> Any:
  """Compiles the training step of a config, whose batch is over all chips.

  The chips may be there or not, see topology.py.

  Raises:
    ValueError: if the batch does not divide.
  """
  train = config.train
  devices.check_devices(
    'train.batch_size', train.batch_size, train.accumulate, len(chips)
  )
  parts, mesh = build.build(config), devices.make_mesh(train.fsdp, list(chips))
  _, optimizer = build.make_optimizer(config)
  _, abstract = build.make_state(parts, optimizer, mesh)
  placed, recipe = devices.shardings(abstract), build.make_recipe(config)
  step = make_step(parts, recipe, optimizer, mesh, placed)
  stacked = train.steps_per_call > 1
  lead = (train.steps_per_call,) * stacked + (train.batch_size,)
  rows = devices.split_on(mesh, stacked)
  batch = {
    'image': _abstract((*lead, *2 * [parts.image_size], 3), jnp.uint8, rows),
    'codes': _abstract((*lead, *2 * [parts.code_size]), jnp.int16, rows),
  }
  key = _abstract((), jax.random.key(0).dtype, devices.copied_on(mesh))
  return devices.compile_ahead(step, abstract, batch, key)


def compile_sampler(config: ConfigDict, chips: Sequence[jax.Device]) -> Any:
  """Compiles the sampler, without the encoder; see compile_step."""
  count = config.eval.batch_size
  devices.check_devices('eval.batch_size', count, devices=len(chips))
  parts, mesh = build.build(config), devices.make_mesh(1, list(chips))
  options, rows = build.sampler_options(config.sample), devices.split_on(mesh)
  params = build.abstract_params(parts, mesh)
  photos = _abstract((count, *2 * [parts.image_size], 3), jnp.uint8, rows)
  seen = jax.eval_shape(parts.encode, params, photos)
  pairs = _abstract((count, 2), jnp.int32, rows)  # sizes, and labels
  return devices.compile_ahead(
    draw_samples.make_functions(parts, options, mesh).sample,
    params,
    _abstract(seen.shape, seen.dtype, rows),
    pairs,
    pairs,
    _abstract((), jnp.uint32, devices.copied_on(mesh)),
  )


def _abstract(shape, dtype, where):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def _measure(what, unit, call, count, flops, peak):
  """Times a call that makes `count` units, of `flops` each."""
  rate = count / seconds(call)
  return [
    (f'{what}: work', flops / 1e9, 'GFLOP'),
    (f'{what}: {unit}', rate, f'{unit}/s'),
    (f'{what}: rate', flops * rate / 1e12, 'TFLOP/s'),
    (f'{what}: share of matmul', 100 * flops * rate / peak, '%'),
  ]


def _trace(call, folder):
  """Writes a trace of one call for XProf, TensorBoard or Perfetto."""
  with jax.profiler.trace(folder):
    jax.block_until_ready(call())


def measure_train(config: ConfigDict, peak: float, traces: str = '') -> Rows:
  """Benchmarks a training step at config.train.batch_size.

  Args:
    config: config of a run.
    peak: FLOP/s to compare with, see matmul_rate.
    traces: folder for a trace of one step; '' = none.
  """
  program, said = compile_and_tell('train', config, jax.devices())
  parts, mesh = build.build(config), devices.make_mesh(config.train.fsdp)
  _, optimizer = build.make_optimizer(config)
  state = build.make_state(parts, optimizer, mesh)[0](jax.random.key(0))
  batch, key = training_batch(config, parts, mesh), jax.random.key(1)

  def step():
    nonlocal state
    state, values = program(state, batch, key)
    return values

  images = config.train.batch_size * config.train.steps_per_call
  flops = work(config)['train']
  rows = _measure('train', 'images', step, images, flops, peak)
  draws = config.train.draws * rows[1][1]
  if traces:
    _trace(step, f'{traces}/train')
  return [*rows, ('train: draws', draws, 'draws/s'), *said]


def measure_sample(config: ConfigDict, peak: float, traces: str = '') -> Rows:
  """As measure_train, of the sampler at config.eval.batch_size, and a photo."""
  program, said = compile_and_tell('sample', config, jax.devices())
  parts, count = build.build(config), config.eval.batch_size
  params = noisy_params(jax.jit(parts.init_params)(jax.random.key(0)))
  photos, _, _ = network_inputs(parts, count)
  seen = jax.jit(parts.encode)(params, photos)
  labels = np.stack([np.zeros(count), np.arange(count)], 1).astype(np.int32)
  size = np.full((count, 2), parts.code_size, np.int32)
  args = jax.device_put(
    (params, seen, size, labels, np.uint32(0)), program.input_shardings[0]
  )
  call, flops = lambda: program(*args), work(config)['sample']
  rows = _measure('sample', 'samples', call, count, flops, peak)
  if traces:
    _trace(call, f'{traces}/sample')
  segmenter = Segmenter(weights.Weights(params, config))
  photo = ProceduralScenes(1, 512, 12)[0]['image']
  seeds = iter(range(1000))  # or a photo's samples would be kept
  segment = lambda: segmenter.segment(photo, 8, seed=next(seeds)).id_map
  return [*rows, ('photo of 512 px, 8 samples', seconds(segment), 's'), *said]
