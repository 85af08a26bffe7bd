"""The benchmark's own data is what it says, and every number is printed."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitseg_jax import benchmark
from bitseg_jax.benchmarks import device, host
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
def test_every_measure_gives_rows(tiny_config, what, monkeypatch):

  def once(call, *_, **__):
    jax.block_until_ready(call())
    return 1.0

  monkeypatch.setattr(device, 'seconds', once)
  rows = benchmark.measure(what, tiny_config, '', peak=1e12, traces='')
  assert rows and all(np.isfinite(value) for _, value, _ in rows)
  names = [name for name, _, _ in rows]
  assert len(set(names)) == len(names)
  assert not any('all-reduce' in name for name in names)  # one device


def test_a_trace_is_left_in_the_folder(tmp_path):
  matrix = jnp.ones((300, 300))
  device.trace(lambda: matrix @ matrix, str(tmp_path))
  assert list(tmp_path.glob('plugins/profile/*/*.xplane.pb'))


def test_for_a_slice_only_programs_are_measured(
  tiny_config, monkeypatch, capsys
):
  rows = lambda what, config, name: [(f'{what} on {name}', 1.0, 'ms')]
  monkeypatch.setattr(benchmark.topology, 'measure', rows)
  benchmark.run(list(benchmark.WHAT), tiny_config, slice_name='v5e:2x2')
  printed = capsys.readouterr().out
  assert 'train on v5e:2x2' in printed and 'sample on v5e:2x2' in printed
  assert 'matmul' not in printed
  with pytest.raises(ValueError, match='compiles train and sample'):
    benchmark.run(['input'], tiny_config, slice_name='v5e:2x2')
  with pytest.raises(ValueError, match='--profile traces what is run'):
    benchmark.run(['train'], tiny_config, slice_name='v5e:2x2', traces='x')
