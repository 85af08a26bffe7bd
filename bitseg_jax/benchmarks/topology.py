"""What a slice of TPUs allows, from programs compiled for it without one.

libtpu compiles for any slice on a machine without TPUs. The compiler says what
memory a chip needs and what it sends to others, and the chip's published peaks
say how long computing and sending take at least. The longer of the two binds.
"""

import importlib.util
import os
from typing import NamedTuple

import jax
from jax.experimental import topologies
from ml_collections import ConfigDict

from bitseg_jax.benchmarks import device
from bitseg_jax.benchmarks.host import Rows


class Chip(NamedTuple):
  """Published peaks of a chip."""

  # Of products in bfloat16. Float32 ones take as long, because XLA computes
  # them in one pass of bfloat16 by default.
  flops: float
  links: float  # bytes/s over all its links to other chips
  capacity: float  # GiB of HBM


# Source: cloud.google.com/tpu/docs, the page of each version.
CHIPS = {
  'v4': Chip(275e12, 300e9, 32),
  'v5e': Chip(197e12, 200e9, 16),
  'v5p': Chip(459e12, 600e9, 95),
  'v6e': Chip(918e12, 400e9, 32),
}
# libtpu would ask the machine about its TPUs; and two may compile at once.
_ENVIRON = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': 'true',
}


def open_slice(name: str) -> tuple[Chip, list[jax.Device]]:
  """Opens a slice of TPUs, such as v5e:2x2, that is not there, to compile for.

  Returns:
    (the chip, its devices).

  Raises:
    ValueError: if there is no such slice, or no libtpu.
  """
  version, _, shape = name.partition(':')
  if version not in CHIPS or not shape:
    raise ValueError(
      f'--topology={name}: give a chip of {", ".join(CHIPS)} and a shape, '
      'such as v5e:2x2, v5e:16x16 or v5p:2x2x1'
    )
  if not importlib.util.find_spec('libtpu'):
    raise ValueError(f"--topology={name}: pip install 'jax[tpu]' for libtpu")
  for key, value in _ENVIRON.items():
    os.environ.setdefault(key, value)
  # A v4 has two cores, which programs see as one device: a "megacore".
  more = {'chip_config_name': 'megacore'} if version == 'v4' else {}
  try:
    found = topologies.get_topology_desc(name, 'tpu', **more)
  except RuntimeError as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f'--topology={name}: no such slice: {reason}') from error
  return CHIPS[version], list(found.devices)


def measure(what: str, config: ConfigDict, topology: str) -> Rows:
  """Tells what a slice, see open_slice, allows for `what`: train or sample."""
  config = config.copy_and_resolve_references()
  config.train.steps_per_call = 1
  chip, chips = open_slice(topology)
  program, said = device.compile_and_tell(what, config, chips)
  images = config['train' if what == 'train' else 'eval'].batch_size
  flops = images // len(chips) * device.work(config)[what]
  # In a ring each byte of a sum passes every chip twice, any other once.
  sent = sum(
    size * (2 if kind == 'all-reduce' else 1)
    for kind, (_, size) in device.collectives(program.as_text()).items()
  )
  times = {'FLOPs': flops / chip.flops, 'interconnect': sent / chip.links}
  binding = max(times, key=times.get)
  return [
    *said,
    (f'{what}: memory of a chip', chip.capacity, 'GiB'),
    (f'{what}: images per chip', images // len(chips), ''),
    (f'{what}: work of a chip', flops / 1e12, 'TFLOP'),
    *((f'{what}: time that {k} take', 1e3 * t, 'ms') for k, t in times.items()),
    (f'{what}: least time', 1e3 * times[binding], f'ms, bound by {binding}'),
    (f'{what}: images at most', images / times[binding], 'images/s'),
  ]
