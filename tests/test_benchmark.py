"""The benchmark's own data is what it says, and every number is printed."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from bitseg_jax import benchmark
from bitseg_jax.benchmarks import device, host
from bitseg_jax.configs import main


def test_work_is_counted_as_on_paper():
  """67.9 GFLOP of a forward pass, as docs/performance.md has it."""
  config = main.get_config()
  found = device.work(config)
  assert found['train'] == pytest.approx(3 * 67.9e9, rel=2e-3)
  evaluations = 2 * config.sample.num_steps
  assert found['sample'] == pytest.approx(evaluations * 67.9e9, rel=2e-3)


def test_collectives_are_counted_with_their_bytes():
  program = """
    %r = f32[10,4]{1,0} all-reduce(%a), replica_groups={{0,1}}
    %t = (f32[8]{0}, bf16[2,3]{1,0}) all-reduce(%b, %c), channel_id=2
    %g = f32[] all-gather-start(%d)
    %h = (f32[2], f32[8]) all-gather-start(%e), channel_id=3
    %i = (f32[2], f32[8]) all-gather-start(%f), channel_id=3
    %u = f32[10] add(%r, %all-reduce.2)
  """
  assert device.collectives(program) == {
    'all-reduce': (2, 160 + 32 + 12),
    'all-gather': (2, 4 + 32),  # one in two pieces counts once
  }


def call(monkeypatch, config, what, **values):
  given = {'data': '', 'output': '', 'compare': '', 'profile': ''}
  given |= {'topology': '', 'config': config, 'what': what}
  flags = SimpleNamespace(**given | values)
  monkeypatch.setattr(benchmark.flags, 'FLAGS', flags)
  benchmark.main()


def test_it_prints_writes_and_compares_what_it_measures(
  tmp_path, tiny_config, monkeypatch, capsys
):
  path = tmp_path / 'a.json'
  for value, more in ((2.0, {'output': path}), (3.0, {'compare': path})):
    rows = [('all', value, 'ms')]
    monkeypatch.setattr(host, 'measure_input', lambda *_, rows=rows: rows)
    call(monkeypatch, tiny_config, ['input', 'metrics'], **more)
  printed = capsys.readouterr().out
  assert 'x 1.50' in printed and 'ARI + IoU' in printed
  assert ['all', 2.0, 'ms'] in json.loads(path.read_text())['rows']


@pytest.mark.parametrize('what', device.UNITS)
def test_every_measure_gives_rows(tiny_config, what, monkeypatch, tmp_path):
  tiny_config.model.channel_mults, tiny_config.model.attention_levels = (1,), ()

  def once(call, *_, **__):
    jax.block_until_ready(call())
    return 1.0

  monkeypatch.setattr(device, 'seconds', once)
  rows = device.measure(what, tiny_config, 1e12, str(tmp_path))
  assert list(tmp_path.glob(f'{what}/plugins/profile/*/*.xplane.pb'))
  assert rows and all(np.isfinite(value) for _, value, _ in rows)
  names = [name for name, _, _ in rows]
  assert len(set(names)) == len(names)
  assert not any('all-reduce' in name for name in names)  # one device
  assert f'{what}: memory, says the compiler' in names


def test_for_a_slice_only_programs_are_measured(
  tiny_config, monkeypatch, capsys
):
  tell = lambda what, config, name: ([(f'{what} on {name}', 1.0, 'ms')],)
  monkeypatch.setattr(device, 'compile_and_tell', tell)
  monkeypatch.setattr(device, 'open_slice', lambda name: name)
  call(monkeypatch, tiny_config, list(benchmark.WHAT), topology='v5e:2x2')
  printed = capsys.readouterr().out
  assert 'train on v5e:2x2' in printed and 'sample on v5e:2x2' in printed
  assert 'matmul' not in printed


@pytest.mark.parametrize(
  'what, values, message',
  [
    ('speed', {}, 'choose among input, metrics'),
    ('input', {'output': '/nowhere/a'}, 'its folder does not exist'),
    ('input', {'topology': 'v5e:2x2'}, '--topology compiles only'),
    ('train', {'topology': 'v5e:2x2', 'profile': 'x'}, 'no --profile'),
  ],
)
def test_what_is_asked_wrongly_is_refused(
  tiny_config, monkeypatch, what, values, message
):
  with pytest.raises((ValueError, OSError), match=message):
    call(monkeypatch, tiny_config, [what], **values)


def test_a_missing_libtpu_is_told(monkeypatch):
  monkeypatch.setattr(device.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r'pip install .jax\[tpu\]'):
    device.open_slice('v5e:2x2')
