"""Batches of drawn scenes on the devices, to train on in tests."""

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.runs import build, devices


def training_batch(
  config: ConfigDict, parts: build.Experiment, mesh: Mesh
) -> dict[str, jax.Array]:
  """Returns a batch for a training step."""
  scenes = ProceduralScenes(64, parts.image_size, 12)
  batches = build.training_batches(config, [scenes], parts.palette, mesh)
  return devices.put_batch(next(iter(batches)), mesh)
