"""The benchmark's own data is what it says, and every number is printed."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitseg_jax import benchmark
from bitseg_jax.benchmarks import device, host, profile
from bitseg_jax.data.source import load_example


def test_its_photo_has_the_size_and_entities_that_it_says(tmp_path):
  source = host.make_source(tmp_path)
  example = load_example(source, source.splits['train'][0])
  assert example['image'].shape == (750, 1000, 3)
  assert len(np.unique(example['id_maps'][0])) == 56


def test_times_are_the_median_of_one_call(monkeypatch):
  clock, costs = [0.0], iter([0.002] * 4 + [0.003] * 4 + [9.0] * 4)
  monkeypatch.setattr(host.time, 'process_time', lambda: clock[0])

  def work():
    clock[0] += next(costs)

  assert host.milliseconds(work, repeats=3, calls=4) == pytest.approx(3)


def test_work_is_counted_as_on_paper():
  a, b = jnp.zeros((32, 64)), jnp.zeros((64, 16))
  assert device.flops_of(jnp.matmul, a, b) == 2 * 32 * 64 * 16


def test_collectives_are_counted_with_their_bytes():
  program = """
    %r = f32[10,4]{1,0} all-reduce(%a), replica_groups={{0,1}}
    %t = (f32[8]{0}, bf16[2,3]{1,0}) all-reduce(%b, %c), channel_id=2
    %g = f32[] all-gather-start(%d)
    %u = f32[10] add(%r, %all-reduce.2)
  """
  assert device.collectives(program) == {
    'all-reduce': (2, 160 + 32 + 12),
    'all-gather': (1, 4),
  }


def test_wrong_data_ends_in_one_line(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'bitseg_jax.benchmark', f'--output={tmp_path}/no/a'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert 'does not exist' in done.stderr


def test_it_prints_writes_and_compares_what_it_measures(
  tmp_path, tiny_config, monkeypatch, capsys
):
  path = tmp_path / 'a.json'
  for value, output in ((2.0, str(path)), (3.0, '')):
    rows = [('all', value, 'ms')]
    monkeypatch.setattr(benchmark, 'measure', lambda *_, rows=rows: rows)
    compare = '' if output else str(path)
    benchmark.run(['input'], tiny_config, '', output, compare)
  assert 'x 1.50' in capsys.readouterr().out
  assert ['all', 2.0, 'ms'] in json.loads(path.read_text())['rows']


def test_unknown_measure_is_refused(tiny_config):
  with pytest.raises(ValueError, match='choose among input, metrics'):
    benchmark.run(['speed'], tiny_config)


@pytest.mark.parametrize('what', ['train', 'sample', 'metrics'])
def test_every_measure_gives_rows(tiny_config, what):
  rows = benchmark.measure(what, tiny_config, '', peak=1e12, traces='')
  assert rows and all(np.isfinite(value) for _, value, _ in rows)
  names = [name for name, _, _ in rows]
  assert len(set(names)) == len(names)
  assert not any('all-reduce' in name for name in names)  # one device


def test_operations_are_counted_by_the_part_of_the_network_they_are_of():
  def line(name, result, path=''):
    metadata = f', metadata={{op_name="jit(step)/{path}"}}' if path else ''
    return f'  %{name} = {result}{{3,2,1,0}} fusion(%x){metadata}'

  conv, backward = (
    'up_0_res/conv_in/conv_general_dilated',
    'transpose(jvp(UNet))',
  )
  program = [
    line('copy.1', 'f32[8,4,4,6]'),
    line('convolution.7', 'f32[64,3,3,6]'),
    line('a', 'f32[8,4,4,6]', f'jvp(UNet)/{conv}'),
    line('b', 'f32[3,3,64,64]', f'{backward}/{conv}'),
    line('c', 'f32[8,4,4,6]', f'{backward}/up_0_res/norm_in/mul'),
    line('d', 'f32[9]', 'mul'),
  ]
  assert profile.kinds_of('\n'.join(program)) == {
    'copy.1': 'put in by the compiler',
    'convolution.7': 'gradients of kernels',
    'a': 'convolutions',
    'b': 'gradients of kernels',
    'c': 'gradients, norm and SiLU',
    'd': 'outside of the network',
  }


def test_a_moment_is_that_of_the_last_operation_to_start():
  event = lambda name, start, end: {
    'ph': 'X',
    'ts': start,
    'dur': end - start,
    'args': {'hlo_op': name},
  }
  events = [
    event('launch', 0, 1),  # and nothing until 40
    event('long', 40, 90),
    event('short', 50, 60),
    event('last', 90, 100),
    {'ph': 'X', 'ts': 0, 'dur': 500, 'args': {}},
    {'ph': 'M', 'name': 'thread_name'},
  ]
  assert profile.shares(
    events, {n: n for n in ('launch', 'long', 'short')}
  ) == {
    'launch': 1,
    profile.NOTHING: 39,
    'long': 40,
    'short': 10,
    'unnamed': 10,
  }


def test_a_profile_says_where_all_the_time_went(tmp_path):
  matrix = jnp.ones((300, 300))
  program, _ = device.compile_program(jax.jit(jnp.dot), matrix, matrix)
  call = lambda: program(matrix, matrix)
  call()
  rows = profile.measure_shares('dot', program, call, str(tmp_path))
  assert sum(share for _, share, _ in rows) == pytest.approx(100)
  assert list(tmp_path.glob('plugins/profile/*/*.xplane.pb'))
