"""Placement changes where arrays lie and what crosses, never the numbers."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.evaluation import evaluate
from bitseg_jax.runs import checkpoint, devices, train_state, weights
from bitseg_jax.training import train


def specs(shapes, fsdp):
  mesh = AbstractMesh((2, fsdp), ('data', 'fsdp'))
  tree = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return [leaf.sharding.spec for leaf in devices.placed(tree, mesh)]


def test_only_large_arrays_are_cut_along_the_longest_axis_that_divides():
  assert specs([(3, 3, 64, 128), (3, 3, 128, 66)], 4) == [
    PartitionSpec(None, None, None, 'fsdp'),
    PartitionSpec(None, None, 'fsdp', None),
  ]
  copied = specs([(), (64,), (3, 3, 9, 7), (4095, 3)], 4)
  assert not any(map(any, copied + specs([(3, 3, 64, 128)], 1)))


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
from tests.batches import training_batch

def run(fsdp=1, accumulate=1, count=8):
  config = quickstart.get_config()
  config.data.image_size = 16
  config.model.channel_mults = (1, 2)
  config.model.attention_levels = (1,)
  config.train.update(
    batch_size=16, fsdp=fsdp, accumulate=accumulate, optimizer=sys.argv[1]
  )
  parts, mesh = build.build(config), devices.make_mesh(fsdp)
  if count < 8:
    mesh = jax.make_mesh(
      (count, 1),
      mesh.axis_names,
      axis_types=(AxisType.Auto,) * 2,
      devices=jax.devices()[:count],
    )
  _, optimizer = build.make_optimizer(config)
  init, abstract = build.make_state(parts, optimizer, mesh)
  state = init(jax.random.key(0))
  key = jax.device_put(jax.random.key(1), devices.copied_on(mesh))
  recipe, placed = build.make_recipe(config), devices.shardings(abstract)
  step = train_step.make_step(parts, recipe, optimizer, mesh, placed)
  batch = training_batch(config, parts, mesh)
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

others = [run(count=1)]
if sys.argv[1] == 'adamw':  # muon takes longer to compile
  others += [run(count=4), run(accumulate=2)]
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
  # The gradient crosses once per step, and little else with it, however many
  # devices there are.
  crossed = lambda of: sum(size for _, size in of['collectives'].values())
  for many in (plain, *others[1:2]):
    assert 4 * plain['values'] <= crossed(many) < 1.05 * 4 * plain['values']
  assert not crossed(others[0])
  assert plain['on_one'] == plain['values']
  assert cut['on_one'] < 0.3 * cut['values']


@pytest.fixture
def mesh(monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  return devices.make_mesh()


def test_the_compiler_takes_the_options_and_computes_the_same(mesh):
  options = devices.compiler_options(mesh)
  if options is None:
    pytest.skip('this jaxlib has no such choice')

  def loss(kernel, x):
    y = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return jnp.mean(jnp.square(y))

  draw = np.random.default_rng(0)
  kernel = draw.normal(size=(3, 3, 32, 32)).astype(np.float32)
  x = draw.normal(size=(2, 16, 16, 32)).astype(np.float32)
  plain = jax.jit(jax.grad(loss)).lower(kernel, x).compile()
  chosen = jax.jit(jax.grad(loss), compiler_options=options)
  chosen = chosen.lower(kernel, x).compile()
  assert chosen.as_text() != plain.as_text()  # the options reach the compiler
  np.testing.assert_allclose(
    chosen(kernel, x), plain(kernel, x), rtol=1e-4, atol=1e-5
  )


def test_nothing_is_chosen_against_the_user_or_an_older_jaxlib(
  mesh, monkeypatch
):
  monkeypatch.setattr(devices, '_FUSED', {'xla_cpu_no_such_option': 'false'})
  assert not devices._xla_fuses.__wrapped__()
  monkeypatch.setattr(devices, '_xla_fuses', lambda: True)
  assert devices.compiler_options(mesh)
  monkeypatch.setenv('XLA_FLAGS', f'--{devices._FUSION}=')
  assert devices.compiler_options(mesh) is None
  monkeypatch.delenv('XLA_FLAGS')
  monkeypatch.setattr(devices, '_xla_fuses', lambda: False)
  assert devices.compiler_options(mesh) is None


@pytest.fixture
def odd_surroundings():
  """A program that has set JAX in every way that changes what is computed."""
  odd = {
    'jax_enable_x64': True,
    'jax_numpy_dtype_promotion': 'strict',
    'jax_numpy_rank_promotion': 'raise',
    'jax_default_prng_impl': 'rbg',
    'jax_threefry_partitionable': False,
  }
  before = {name: getattr(jax.config, name) for name in odd}
  yield lambda: [jax.config.update(*item) for item in odd.items()]
  for item in before.items():
    jax.config.update(*item)


def test_what_the_program_around_sets_changes_no_number(
  random_run, tiny_config, tmp_path, draw_photo, odd_surroundings
):
  tiny_config.model.channel_mults, tiny_config.model.attention_levels = (1,), ()
  tiny_config.train.num_steps, made = 2, []
  for folder in tmp_path / 'usual', tmp_path / 'odd':
    model = Segmenter.from_checkpoint(random_run)
    made.append(model.segment(draw_photo(0, 30, 47), num_samples=2).samples)
    assert train.train(tiny_config, folder)
    made.append(weights.read(folder).params)
    results = evaluate.evaluate(checkpoint.read_config(folder), folder)
    made.append(results['ema']['ari'])
    odd_surroundings()
  jax.tree.map(np.testing.assert_array_equal, made[:3], made[3:])


def test_a_forked_process_is_told_instead_of_hanging(random_run):
  program = (
    'import multiprocessing, sys, numpy as np\n'
    'from bitseg_jax import Segmenter\n'
    'model = Segmenter.from_checkpoint(sys.argv[1])\n'
    'segment = lambda i: model.segment(np.zeros((9, 9, 3), np.uint8)).id_map\n'
    'work = lambda: print(segment(0))\n'
    'child = multiprocessing.get_context("fork").Process(target=work)\n'
    'work(); child.start(); child.join(60); sys.exit(child.exitcode != 1)'
  )
  done = subprocess.run(
    [sys.executable, '-c', program, str(random_run)],
    env={**os.environ, 'PYTHONPATH': '.'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0
  assert 'load the model in each worker' in done.stderr
