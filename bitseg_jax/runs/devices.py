"""Device mesh and placement of arrays: data parallelism and optional FSDP."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_LEAST_SHARDED = 2**12  # values; smaller arrays are not worth a collective


def make_mesh(
  fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Arranges all devices of all processes in a mesh with axes data and fsdp.

  Args:
    fsdp: number of devices that share one copy of the training state; they are
      neighbours, between which communication is fastest.
    devices: others than those of all processes, such as those of a slice that
      is only compiled for.

  Returns:
    The mesh, of shape [devices / fsdp, fsdp].

  Raises:
    ValueError: if fsdp does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if count % fsdp:
    raise ValueError(
      f'config.train.fsdp is {fsdp}, which does not divide {count} devices'
    )
  shape, names = (count // fsdp, fsdp), ('data', 'fsdp')
  # With Auto axes, which Linen needs, the compiler places the collectives.
  types = (AxisType.Auto,) * 2
  slices = len({getattr(d, 'slice_index', 0) for d in devices})
  if slices == 1:
    return jax.make_mesh(shape, names, axis_types=types, devices=devices)
  if shape[0] % slices:
    raise ValueError(
      f'config.train.fsdp is {fsdp}, over the {count // slices} devices of a '
      'slice; parameters are not shared between slices'
    )
  # Only the gradient, summed along 'data', crosses between slices.
  arranged = mesh_utils.create_hybrid_device_mesh(
    (shape[0] // slices, fsdp), (slices, 1), devices
  )
  return Mesh(arranged, names, axis_types=types)


def split_on(mesh: Mesh, stacked: bool = False) -> NamedSharding:
  """Returns the sharding of batch rows over all devices; axis 1 if stacked."""
  rows = (None, mesh.axis_names) if stacked else (mesh.axis_names,)
  return NamedSharding(mesh, PartitionSpec(*rows))


def copied_on(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that keeps a copy of an array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def placed(shapes: Any, mesh: Mesh) -> Any:
  """Assigns a sharding to each array of a training state.

  An array is split along its longest axis that the number of fsdp devices
  divides. Small arrays are copied, and so are all arrays if fsdp is 1.

  Args:
    shapes: pytree of arrays or jax.ShapeDtypeStruct.
    mesh: as from make_mesh.

  Returns:
    The same tree of jax.ShapeDtypeStruct with shardings.
  """
  parts = mesh.shape['fsdp']

  def place(leaf):
    axes = [i for i, n in enumerate(leaf.shape) if n % parts == 0]
    spec = [None] * len(leaf.shape)
    if parts > 1 and axes and np.prod(leaf.shape) >= _LEAST_SHARDED:
      spec[max(axes, key=lambda i: leaf.shape[i])] = 'fsdp'
    return jax.ShapeDtypeStruct(
      leaf.shape,
      leaf.dtype,
      sharding=NamedSharding(mesh, PartitionSpec(*spec)),
    )

  return jax.tree.map(place, shapes)


def shardings(placed: Any) -> Any:
  """Extracts the shardings from what `placed` returns."""
  return jax.tree.map(lambda leaf: leaf.sharding, placed)


def local_rows(mesh: Mesh, count: int) -> np.ndarray:
  """Finds which rows of a batch lie on the devices of this process.

  They depend on the order of the devices in the mesh, which on TPU follows the
  topology, and need not be contiguous.

  Args:
    mesh: the mesh.
    count: rows of the batch, B.

  Returns:
    int [local B], ascending.
  """
  spans = split_on(mesh).addressable_devices_indices_map((count,)).values()
  return np.unique([np.arange(count)[span] for span in spans])


def put_batch(batch: Any, mesh: Mesh, stacked: bool = False) -> Any:
  """Makes global arrays of this process's rows.

  Args:
    batch: pytree of arrays [local B, ...], the rows of `local_rows` in their
      order; [K, local B, ...] if stacked.
    mesh: the mesh.
    stacked: whether it is a stack of K batches.

  Returns:
    The same tree of jax.Array [B, ...] or [K, B, ...], rows split over all
    devices.
  """
  axis = int(stacked)
  # Not mesh.local_mesh, which must be contiguous.
  share = mesh.size // len(split_on(mesh).addressable_devices)

  def put(local):
    local = np.asarray(local)
    count = local.shape[axis] * share
    rows = local_rows(mesh, count)

    def part(index):
      first, last, _ = index[axis].indices(count)
      start, stop = np.searchsorted(rows, (first, last))
      return local[(slice(None),) * axis + (slice(start, stop),)]

    shape = (*local.shape[:axis], count, *local.shape[axis + 1 :])
    return jax.make_array_from_callback(shape, split_on(mesh, stacked), part)

  return jax.tree.map(put, batch)


def local_part(array: jax.Array) -> np.ndarray:
  """The rows of a batch that lie on this process, as `local_rows` orders them.

  Args:
    array: [B, ...], rows split over all devices, see split_on.

  Returns:
    The array [local B, ...] on the host.
  """
  shards = {
    shard.index[0].start or 0: shard for shard in array.addressable_shards
  }
  return np.concatenate([np.asarray(shards[i].data) for i in sorted(shards)])


def put_next(batches: Iterator[Any], mesh: Mesh, together: int = 1) -> Any:
  """Puts the next batch on the devices, or a stack of the next `together`."""
  if together == 1:
    return put_batch(next(batches), mesh)
  several = [next(batches) for _ in range(together)]
  stack = jax.tree.map(lambda *parts: np.stack(parts), *several)
  return put_batch(stack, mesh, stacked=True)


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
