"""Placement changes where arrays lie and what crosses, never the numbers."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from bitseg_jax.runs import devices, train_state


def specs(shapes, fsdp):
  mesh = AbstractMesh((2, fsdp), ('data', 'fsdp'))
  tree = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return [leaf.sharding.spec for leaf in devices.placed(tree, mesh)]


def test_large_arrays_are_cut_along_their_longest_axis_that_divides():
  assert specs([(3, 3, 64, 128), (3, 3, 128, 66)], 4) == [
    PartitionSpec(None, None, None, 'fsdp'),
    PartitionSpec(None, None, 'fsdp', None),
  ]


def test_small_and_indivisible_arrays_are_copied():
  for spec in specs([(), (64,), (3, 3, 9, 7), (4095, 3)], 4):
    assert not any(spec)


def test_nothing_is_cut_for_one_device():
  assert not any(specs([(3, 3, 64, 128)], 1)[0])


def test_devices_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match='fsdp is 3, which does not divide 1'):
    devices.make_mesh(3)


# Trains on 8 devices, or the first few of them, under a guard that lets nothing
# cross by accident.
PROGRAM = """
import json, sys
import jax
from jax.sharding import AxisType
from bitseg_jax.configs import quickstart
from bitseg_jax.benchmarks import device
from bitseg_jax.runs import build, devices
from bitseg_jax.training import step as train_step

def run(fsdp=1, accumulate=1, devices=8):
  config = quickstart.get_config()
  config.data.image_size = 16
  config.model.channel_mults = (1, 2)
  config.model.attention_levels = (1,)
  config.train.update(
    batch_size=16, fsdp=fsdp, accumulate=accumulate, optimizer=sys.argv[1]
  )
  parts, mesh = build.build(config), devices.make_mesh(fsdp)
  if devices < 8:
    mesh = jax.make_mesh(
      (devices, 1),
      mesh.axis_names,
      axis_types=(AxisType.Auto,) * 2,
      devices=jax.devices()[:devices],
    )
  _, optimizer = build.make_optimizer(config)
  init, abstract = build.make_state(parts, optimizer, mesh)
  state = init(jax.random.key(0))
  key = jax.device_put(jax.random.key(1), devices.copied_on(mesh))
  recipe, placed = build.make_recipe(config), devices.shardings(abstract)
  step = train_step.make_step(parts, recipe, optimizer, mesh, placed)
  batch = device.training_batch(config, parts, mesh)
  program = step.lower(state, batch, key).compile()
  losses = []
  with jax.transfer_guard('disallow'):
    for _ in range(4):
      state, metrics = program(state, batch, key)
      losses.append(metrics['loss'])
  leaves = jax.tree.leaves(state.params)
  return {
    'losses': [float(loss) for loss in losses],
    'values': sum(leaf.size for leaf in leaves),
    'on_one': sum(leaf.addressable_shards[0].data.size for leaf in leaves),
    'collectives': device.collectives(program.as_text()),
  }

others = [run(devices=1)]
if sys.argv[1] == 'adamw':  # muon takes longer to compile
  others += [run(devices=4), run(accumulate=2)]
print(json.dumps([run(), run(fsdp=4), others]))
"""


@pytest.mark.slow
@pytest.mark.parametrize('optimizer', train_state.OPTIMIZERS)
def test_eight_devices_share_the_work_by_one_sum_of_gradients(optimizer):
  environ = {**os.environ, 'JAX_NUM_CPU_DEVICES': '8', 'PYTHONPATH': '.'}
  command = [sys.executable, '-c', PROGRAM, optimizer]
  done = subprocess.run(command, env=environ, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  plain, cut, others = json.loads(done.stdout)
  for other in (cut, *others):
    np.testing.assert_allclose(other['losses'], plain['losses'], rtol=1e-5)
  # The gradient crosses once a step, and little else with it, however many
  # devices there are.
  crossed = lambda of: sum(size for _, size in of['collectives'].values())
  for many in (plain, *others[1:2]):
    assert 4 * plain['values'] <= crossed(many) < 1.05 * 4 * plain['values']
  assert not crossed(others[0])
  assert plain['on_one'] == plain['values']
  assert cut['on_one'] < 0.3 * cut['values']


def test_only_the_gradient_crosses_between_slices():
  """Devices that share parameters are of one slice, whatever their order."""
  names = 'id', 'slice_index', 'process_index', 'platform', 'device_kind'
  device = dataclasses.make_dataclass('device', names, frozen=True)
  eight = [device(i, i % 2, i, 'cpu', 'cpu') for i in range(8)]
  mesh = devices.make_mesh(2, eight)
  assert mesh.devices.shape == (4, 2)
  for row in mesh.devices:
    assert len({device.slice_index for device in row}) == 1
  assert len({device.id for device in mesh.devices.flat}) == 8
  with pytest.raises(ValueError, match='are not shared between slices'):
    devices.make_mesh(8, eight)
