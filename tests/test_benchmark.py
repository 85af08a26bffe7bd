"""The benchmark's own data is what it says, and every number is printed."""

import json
import subprocess
import sys

import numpy as np

from bitseg_jax import benchmark
from bitseg_jax.data.source import load_example


def test_its_photo_has_the_size_and_entities_that_it_says(tmp_path):
  source = benchmark.make_source(tmp_path)
  example = load_example(source, source.splits['train'][0])
  assert example['image'].shape == (750, 1000, 3)
  assert len(np.unique(example['id_maps'][0])) == 56


def test_times_are_of_one_call():
  milliseconds = benchmark.milliseconds(lambda: sum(range(20_000)), 5, 2)
  assert 0.02 < milliseconds < 20


def test_wrong_data_ends_in_one_line(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'bitseg_jax.benchmark', f'--output={tmp_path}/no/a'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert 'does not exist' in done.stderr


def test_it_prints_and_writes_what_it_measures(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(benchmark.WHAT, 'input', lambda *_: [('all', 2.5, 'ms')])
  path = tmp_path / 'a.json'
  benchmark.run('input', '', 128, str(path))
  assert 'all' in capsys.readouterr().out
  assert json.loads(path.read_text())['rows'] == [['all', 2.5, 'ms']]
