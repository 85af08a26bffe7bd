"""Devices: other processes, the mesh, and placement of arrays.

The rows of a batch are split over all devices; the training state is copied on
each, or split over the neighbours that share it (FSDP).
"""

import contextlib
import functools
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.experimental
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_LEAST_SHARDED = 2**12  # values; smaller arrays are not worth a collective
# Of XLA on CPU: which operations to leave to YNNPACK.
_FUSION = 'xla_cpu_experimental_ynn_fusion_type'
_FUSED = {_FUSION: 'LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE'}
_process = []  # number of the one that first computed
_LOST = 30  # seconds without a sign of life after which JAX ends a process


@contextlib.contextmanager
def jax_defaults() -> Iterator[None]:
  """Has JAX compute by its defaults in a block, or in a function as decorator.

  Whatever the program around it has set (64 bits, strict promotion, another
  random number generator), the same seed gives the same numbers.

  Raises:
    RuntimeError: in a process forked from one that has used JAX, which would
      wait for ever.
  """
  if os.getpid() != (_process or [os.getpid()])[0]:
    raise RuntimeError(
      'JAX hangs in a process that was forked after it was used: load the '
      'model in each worker, and start workers by '
      "multiprocessing.get_context('spawn')"
    )
  _process[:] = [os.getpid()]
  home = jax if hasattr(jax, 'enable_x64') else jax.experimental  # before 0.8
  with (
    home.enable_x64(False),
    jax.numpy_dtype_promotion('standard'),
    jax.numpy_rank_promotion('allow'),
    jax.default_prng_impl('threefry2x32'),
    jax.threefry_partitionable(True),
  ):
    yield


def join(
  coordinator: str | None,
  num_processes: int | None,
  process_id: int | None,
  patience: float = 50.0,
) -> None:
  """Meets the other processes of a run; where one is lost later, all end.

  Args:
    coordinator: host:port of process 0; None asks the cluster that JAX runs in
      for this and the next two.
    num_processes, process_id: how many there are; number of this one.
    patience: seconds to wait for the others, before the program ends.

  Raises:
    ValueError: the processes cannot meet there.
  """
  host, _, port = (coordinator or 'cluster:1').rpartition(':')
  if not (host and port.isdecimal()):
    raise ValueError(
      f'--coordinator={coordinator}: give host:port of process 0, such as '
      'localhost:1234'
    )
  where = coordinator or 'the address that the cluster gives'

  def give_up():
    print(
      f'\nerror: process {process_id or 0} waited {patience:.0f} s at {where} '
      'for the other processes; start all of them, and check --coordinator, '
      '--num_processes and --process_id',
      file=sys.stderr,
      flush=True,
    )
    os._exit(1)

  late = threading.Timer(patience, give_up)
  late.daemon = True
  late.start()
  try:
    if coordinator and process_id == 0:  # where it is taken, JAX would crash
      socket.create_server(('', int(port))).close()
    # JAX's own limit comes later: it would abort with a stack.
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      initialization_timeout=int(patience) + 60,
      heartbeat_timeout_seconds=_LOST,
    )
    jax.devices()  # the processes meet once more when the devices are opened
  except Exception as error:
    reason = ' '.join(str(error).split())[:300] or type(error).__name__
    raise ValueError(
      f'the processes could not meet at {where}: {reason}'
    ) from error
  finally:
    late.cancel()


def make_mesh(
  fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Arranges devices, by default all, as [devices / fsdp, fsdp].

  The fsdp devices that share one copy of the training state are neighbours,
  between which communication is fastest. ValueError if it does not divide them.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if count % fsdp:
    raise ValueError(
      f'config.train.fsdp is {fsdp}, which does not divide {count} devices'
    )
  types = (AxisType.Auto,) * 2  # Linen needs it
  return jax.make_mesh(
    (count // fsdp, fsdp), ('data', 'fsdp'), types, devices=devices
  )


def split_on(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of the rows of a batch over all devices."""
  return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def copied_on(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that keeps a copy of an array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def placed(shapes: Any, mesh: Mesh) -> Any:
  """Assigns a sharding to each array, or shape, of a training state.

  An array is split along its longest axis that the number of fsdp devices
  divides; small arrays are copied. Returns a tree of jax.ShapeDtypeStruct.
  """
  parts = mesh.shape['fsdp']

  def place(leaf):
    axes = [i for i, n in enumerate(leaf.shape) if n % parts == 0]
    spec = [None] * len(leaf.shape)
    if parts > 1 and axes and np.prod(leaf.shape) >= _LEAST_SHARDED:
      spec[max(axes, key=lambda i: leaf.shape[i])] = 'fsdp'
    return jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec))
    )

  return jax.tree.map(place, shapes)


def shardings(placed: Any) -> Any:
  """Extracts the shardings from what `placed` returns."""
  return jax.tree.map(lambda leaf: leaf.sharding, placed)


def local_rows(mesh: Mesh, count: int) -> np.ndarray:
  """Finds which rows of a batch this process has: int [local B], ascending.

  By the mesh's order of devices, on TPU the topology's; not always contiguous.
  """
  spans = split_on(mesh).addressable_devices_indices_map((count,)).values()
  return np.unique([np.arange(count)[span] for span in spans])


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Makes global arrays [B, ...], split over all devices, of a batch.

  It is a pytree of arrays [local B, ...], the rows of `local_rows` in order.
  """
  rows = split_on(mesh)
  put = lambda local: jax.make_array_from_process_local_data(rows, local)
  return jax.tree.map(put, batch)


def local_part(array: jax.Array) -> np.ndarray:
  """The rows of a batch [B, ...] that `local_rows` names, on the host."""
  shards = {s.index[0].start or 0: s for s in array.addressable_shards}
  return np.concatenate([np.asarray(shards[i].data) for i in sorted(shards)])


def check_devices(
  name: str, batch_size: int, accumulate: int = 1, devices: int | None = None
) -> None:
  """Raises ValueError unless all devices get equal shares of a (micro)batch."""
  devices = devices or jax.device_count()
  if batch_size % (devices * accumulate):
    times = f' times train.accumulate = {accumulate}' * (accumulate > 1)
    raise ValueError(
      f'config.{name} is {batch_size}, which {devices} devices{times} do not '
      f'divide; use a multiple of {devices * accumulate}'
    )


def compiler_options(
  mesh: Mesh, runs_once: bool = False
) -> dict[str, Any] | None:
  """Returns `compiler_options` of jax.jit for training steps and samplers.

  On CPU they leave products and sums to YNNPACK, but not convolutions, whose
  gradients by kernels would take four times as long. They are None on other
  devices, with a jaxlib without that choice, or where XLA_FLAGS makes it. What
  runs only once is not optimized on CPU, and so compiles in half of the time.
  """
  on_cpu = mesh.devices.flat[0].platform == 'cpu'
  if runs_once:
    return {'xla_backend_optimization_level': 0} if on_cpu else None
  chosen = _FUSION in os.environ.get('XLA_FLAGS', '')
  return _FUSED if on_cpu and not chosen and _xla_fuses() else None


@functools.cache
def _xla_fuses():  # not all jaxlibs know the choice
  try:
    jax.jit(lambda x: -x, compiler_options=_FUSED).lower(0.0).compile()
  except jax.errors.JaxRuntimeError:
    return False
  return True
