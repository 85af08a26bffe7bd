"""What a slice of TPUs allows, from programs compiled for it without one.

libtpu compiles for any slice on a machine without TPUs. The compiled text says
what a chip computes, moves and sends, and the chip's published peaks say how
long each of these takes at least. The longest of the three binds.
"""

import importlib.util
import os
import time
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from ml_collections import ConfigDict

from bitseg_jax.benchmarks import device, hlo_traffic
from bitseg_jax.benchmarks.host import Rows
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build, compiling
from bitseg_jax.training import step as train_step


class Chip(NamedTuple):
  """Published peaks of a chip.

  Attributes:
    flops: FLOP/s of matrix products in bfloat16. Float32 ones take as long,
      because XLA computes them in one pass of bfloat16 by default.
    memory: bytes/s of HBM.
    links: bytes/s that it sends over all its links to other chips.
    capacity: GiB of HBM.
  """

  flops: float
  memory: float
  links: float
  capacity: float


# Source: cloud.google.com/tpu/docs, the page of each version.
CHIPS = {
  'v4': Chip(275e12, 1228e9, 300e9, 32),
  'v5e': Chip(197e12, 819e9, 200e9, 16),
  'v5p': Chip(459e12, 2765e9, 600e9, 95),
  'v6e': Chip(918e12, 1640e9, 400e9, 32),
}


def open_slice(name: str) -> tuple[Chip, list[jax.Device]]:
  """Opens a slice of TPUs that is not there, to compile for it.

  Args:
    name: version and shape of the slice, such as v5e:2x2 or v5p:2x2x1.

  Returns:
    (the chip, its devices).

  Raises:
    ValueError: if there is no such slice, or no libtpu.
  """
  version = name.partition(':')[0]
  if version not in CHIPS or version == name:
    raise ValueError(
      f'--topology={name}: give a chip of {", ".join(CHIPS)} and a shape, '
      'such as v5e:2x2, v5e:16x16 or v5p:2x2x1'
    )
  if not importlib.util.find_spec('libtpu'):
    raise ValueError(
      f'--topology={name} needs libtpu, which compiles for TPUs on any Linux '
      "machine: pip install 'bitseg-jax[tpu]'"
    )
  # libtpu would ask the machine about its TPUs; and two may compile at once.
  for key, value in {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': 'true',
  }.items():
    os.environ.setdefault(key, value)
  # A v4 has two cores, which programs see as one device: a "megacore".
  more = {'chip_config_name': 'megacore'} if version == 'v4' else {}
  try:
    found = topologies.get_topology_desc(
      platform='tpu', topology_name=name, **more
    )
  except RuntimeError as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f'--topology={name}: no such slice: {reason}') from error
  return CHIPS[version], list(found.devices)


def compile_step(config: ConfigDict, devices: list[jax.Device]) -> Any:
  """Compiles one training step of a config for the devices.

  Args:
    config: config of a run; its batch is over all devices.
    devices: as from open_slice.

  Returns:
    The compiled program.

  Raises:
    ValueError: if the batch does not divide or does not fit.
  """
  settings = config.copy_and_resolve_references()
  settings.train.steps_per_call = 1
  train, size = settings.train, settings.data.image_size
  devices.check_devices(
    'train.batch_size', train.batch_size, train.accumulate, len(devices)
  )
  parts = build.build(settings)
  mesh = devices.make_mesh(train.fsdp, devices)
  _, optimizer = build.make_optimizer(train)
  _, abstract = build.make_state(parts, optimizer, mesh)
  step = train_step.make_step_fn(settings, parts, optimizer, mesh, abstract)
  rows, key = devices.split_on(mesh), jax.random.key(0)
  square = train.batch_size, size, size
  codes = jnp.uint8 if settings.codes.num_codes <= 256 else jnp.int16
  batch = {
    'image': _abstract((*square, 3), jnp.uint8, rows),
    'codes': _abstract(square, codes, rows),
  }
  key = _abstract((), key.dtype, devices.copied_on(mesh))
  return _compile(step, abstract, batch, key)


def compile_sampler(config: ConfigDict, devices: list[jax.Device]) -> Any:
  """Compiles the sampler, with decoding; see compile_step."""
  count, size = config.eval.batch_size, config.data.image_size
  devices.check_devices('eval.batch_size', count, devices=len(devices))
  parts, mesh = build.build(config), devices.make_mesh(1, devices)
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
      # JAX's cache keeps what is compiled here, but only a TPU can load it.
      warnings.filterwarnings('ignore', 'Error reading persistent compilation')
      return compiling.compile_ahead(function, *args)
  except RuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    reason = str(error).splitlines()[0].partition(': ')[2]
    raise ValueError(f'the batch does not fit: {reason}') from error


def measure(what: str, config: ConfigDict, topology: str) -> Rows:
  """Tells what a slice allows for the training step or the sampler.

  The largest batch that fits follows from the memory at the config's batch and
  at half of it (at 1 image per chip: at 2), on a straight line through both.

  Args:
    what: train or sample.
    config: config of a run.
    topology: see open_slice.

  Returns:
    The rows of the table.
  """
  chip, devices = open_slice(topology)
  section = {'train': 'train', 'sample': 'eval'}[what]
  build = {'train': compile_step, 'sample': compile_sampler}[what]
  images = config[section].batch_size
  began = time.perf_counter()
  program = build(config, devices)
  rows = [(f'{what}: compiling', time.perf_counter() - began, 's')]
  traffic = hlo_traffic.count(program.as_text())
  memory = device.memory_of(program)
  rows += count_rows(what, traffic, chip, images, len(devices))
  each = images // len(devices)
  other = config.copy_and_resolve_references()
  least = len(devices) * (config.train.accumulate if what == 'train' else 1)
  half = images // 2 // least * least or 2 * images
  other[section].batch_size = half
  memory_half = device.memory_of(build(other, devices))
  most = largest_batch(
    (each, memory), (half // len(devices), memory_half), chip.capacity
  )
  rows += [(f'{what}: peak memory', memory, f'GiB of {chip.capacity:g}')]
  if most is not None:
    unit = 'images per chip, by a line'
    rows += [(f'{what}: largest batch that fits', most, unit)]
  return rows


def count_rows(
  what: str,
  traffic: hlo_traffic.Traffic,
  chip: Chip,
  images: int,
  devices: int,
) -> Rows:
  """Returns the rows of a program's counts and of what the chip allows.

  Args:
    what: first word of the rows.
    traffic: counts of one call, of a chip.
    chip: its peaks.
    images: images in a call, over all devices.
    devices: number of chips.
  """
  # In a ring each byte of a sum passes every chip twice, any other once.
  sent = sum(
    size * (2 if kind == 'all-reduce' else 1)
    for kind, (_, size) in traffic.collectives.items()
  )
  times = {
    'FLOPs': traffic.flops / chip.flops,
    'memory': traffic.tiled / chip.memory,
    'interconnect': sent / chip.links,
  }
  binding = max(times, key=times.get)
  rows = [
    (f'{what}: images per chip', images // devices, ''),
    (f'{what}: work of a chip', traffic.flops / 1e12, 'TFLOP'),
    (f'{what}: moved in HBM by operations', traffic.moved / 1e9, 'GB'),
    (f'{what}: moved in HBM beside them', traffic.aside / 1e9, 'GB'),
    (f'{what}: all with the padding of tiles', traffic.tiled / 1e9, 'GB'),
  ]
  for kind, (count, size) in traffic.collectives.items():
    rows += [
      (f'{what}: {kind} in the program', count, ''),
      (f'{what}: {kind} in the program, bytes', size / 2**20, 'MiB'),
    ]
  rows += [(f'{what}: transfers with the host', traffic.host, '')]
  rows += [
    (f'{what}: time that {k} take', 1e3 * t, 'ms') for k, t in times.items()
  ]
  return [
    *rows,
    (f'{what}: least time', 1e3 * times[binding], f'ms, bound by {binding}'),
    (f'{what}: images at most', images / times[binding], 'images/s'),
  ]


def largest_batch(
  one: tuple[int, float], other: tuple[int, float], capacity: float
) -> int | None:
  """Finds the largest batch that fits, on a line through two points.

  Args:
    one: (images per chip, memory).
    other: the same of another batch.
    capacity: memory of the chip.

  Returns:
    Images per chip; 0 if none fits; None if both take as much, because they
    are small.
  """
  per_image = (one[1] - other[1]) / (one[0] - other[0])
  if per_image <= 0:
    return None
  return max(0, int(one[0] + (capacity - one[1]) / per_image))
