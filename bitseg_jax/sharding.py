"""Mesh and placement: data parallel, one process or many."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
  """All devices of all processes along one axis, 'data'."""
  # Auto axes: the compiler places the collectives; Linen needs them.
  return jax.make_mesh(
    (jax.device_count(),), ('data',), axis_types=(AxisType.Auto,)
  )


def split_on(mesh: Mesh) -> NamedSharding:
  """Placement of batches: rows split over the devices."""
  return NamedSharding(mesh, PartitionSpec('data'))


def copied_on(mesh: Mesh) -> NamedSharding:
  """Placement of state: a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Makes global arrays of this process's rows.

  Args:
    batch: pytree of arrays [local B, ...].
    mesh: the mesh.

  Returns:
    The same tree of jax.Array [B, ...], rows split over all devices.
  """
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(
      split_on(mesh), np.asarray(x)
    ),
    batch,
  )
