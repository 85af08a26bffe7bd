"""Experiments train once what is asked for often, and say what came out."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from bitseg_jax import sweep as door
from bitseg_jax.configs.sweeps import sizes
from bitseg_jax.evaluation import ensembles
from bitseg_jax.experiments import report, sweeps
from bitseg_jax.runs.log import write_json

PAPER = ('table1', 'table3', *(f'fig{n}' for n in range(3, 10)))
NAMES = (*PAPER, 'beyond', 'steps')
ABC = sweeps.Sweep(
  'abc',
  'Three rows',
  {'a': {}, 'b': {'codes.palette': 'none'}, 'c': {'sample.num_steps': 2}},
  {'a': (0.6, 0.4), 'b': (0.5, 0.3)},
  {},
)


@pytest.fixture
def counted(monkeypatch):
  """Training and evaluation that only note what they were asked for."""
  seen = {'train': [], 'evaluate': []}

  def train(config, workdir):
    seen['train'].append(workdir.name)
    return config.seed != 13

  def evaluate(config, workdir, output):
    seen['evaluate'].append(workdir.name)
    steps = config.sample.num_steps
    ari = 0.1 * config.seed + steps / 100
    found = {'ema': {'ari': ari, 'iou': ari / 2}}
    write_json(output / 'results.json', found)

  monkeypatch.setattr(sweeps.train, 'train', train)
  monkeypatch.setattr(sweeps.evaluate, 'evaluate', evaluate)
  return seen


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('size', sizes.SIZES)
def test_every_row_can_run_at_every_size(name, size):
  sweep = door.open_sweep(name)
  assert sweep.paper.keys() <= sweep.rows.keys()
  assert sweep.answers.keys() <= sweep.rows.keys()
  for overrides in sweep.rows.values():
    sweeps.configured(sizes.SIZES[size](), overrides, seed=1)


def test_what_was_trained_is_shared_and_done_only_once(tmp_path, counted):
  for _ in range(2):
    assert sweeps.run(ABC, sizes.tiny(), [0, 1], tmp_path)
  # Rows a and c differ in sampling alone: one workdir, where all steps are done
  # when it is asked for again.
  assert len(set(counted['train'])) == 4
  assert len(counted['evaluate']) == 6
  other = ABC._replace(name='other', rows={'same': {}})
  assert sweeps.run(other, sizes.tiny(), [0], tmp_path)
  assert len(counted['evaluate']) == 6


def test_jobs_that_share_the_seeds_are_joined(tmp_path, counted):
  for seeds in ([0], [1], [0, 1]):
    assert sweeps.run(ABC, sizes.tiny(), seeds, tmp_path)
  assert len(counted['evaluate']) == 6
  assert '| c | 0.070' in (tmp_path / 'abc.md').read_text()


def test_a_setting_added_later_does_not_train_anew(tmp_path):
  config = sizes.tiny()
  before = ConfigDict(config.to_dict())
  del before.train.accumulate
  assert sweeps.run_dir(before, tmp_path) == sweeps.run_dir(config, tmp_path)
  config.train.accumulate = 2
  assert sweeps.run_dir(before, tmp_path) != sweeps.run_dir(config, tmp_path)


def test_a_stopped_training_is_not_taken_for_done(tmp_path, counted):
  for _ in range(2):
    assert not sweeps.run(ABC, sizes.tiny(), [0, 13], tmp_path)
    assert len(counted['evaluate']) == 3
  assert counted['train'][-1] == counted['train'][-2]  # the stopped one, again


def test_a_stopped_sweep_tells_the_caller_to_go_on(tmp_path, monkeypatch):
  given = {'sweep': ['fig3'], 'size': 'tiny', 'seeds': ['0'], 'data': ''}
  given['output'] = str(tmp_path)
  monkeypatch.setattr(door.flags, 'FLAGS', SimpleNamespace(**given))
  monkeypatch.setattr(sweeps, 'run', lambda *args, **kwargs: False)
  assert door.main() == os.EX_TEMPFAIL


def test_report_has_every_row_with_seeds_spread_and_paper(tmp_path, counted):
  sweeps.run(ABC, sizes.tiny(), [1, 2], tmp_path)
  text = (tmp_path / 'abc.md').read_text()
  assert '| a | 0.230 ± 0.071 | 0.115 ± 0.035 | 2 | 0.600 | 0.400 |' in text
  assert '| c | 0.170 ± 0.071 | 0.085 ± 0.035 | 2 | - | - |' in text
  assert (tmp_path / 'abc.png').stat().st_size > 1000


def test_axes_span_the_data(monkeypatch, tmp_path):
  sweep = ABC._replace(rows={'a': {}, 'b': {}, 'not yet': {}}, paper={})
  scores = {'a': {0: (0.5, 0.52)}, 'b': {0: (0.51, 0.52)}, 'not yet': {}}
  drawn = []
  monkeypatch.setattr(
    report.pictures, 'save_figure', lambda figure, path: drawn.append(figure)
  )
  report.draw(sweep, scores, tmp_path / 'a.png')
  axes = drawn[0].axes[0]
  low, high = axes.get_ylim()
  assert 0.48 < low < 0.5 and 0.51 < high < 0.54
  assert 'higher is better' in axes.get_ylabel()


def test_a_row_can_score_one_answer_of_many_samples():
  of = lambda ari: {
    'ema': {'ari': 0.1, 'iou': 0.2},
    'by_num_samples': {'4': {'oracle': {'ari': ari, 'iou': ari / 2}}},
  }
  assert sweeps.score_of(of(0.6)) == (0.1, 0.2)
  assert sweeps.score_of(of(0.6), ('oracle', 4)) == (0.6, 0.3)
  two = {'datasets': {'a': of(0.6), 'b': of(0.8)}}
  assert sweeps.score_of(two, ('oracle', 4)) == pytest.approx((0.7, 0.35))


def test_figure_6_is_scored_by_the_best_sample(tmp_path, counted, monkeypatch):
  def evaluate(config, workdir, output):
    assert config.eval.num_samples == 16
    scored = lambda n: {'ari': n / 100, 'iou': n / 100}
    found = {
      str(n): dict.fromkeys(ensembles.ANSWERS, scored(n))
      for n in (1, 2, 4, 8, 16)
    }
    write_json(output / 'results.json', {'by_num_samples': found})

  monkeypatch.setattr(sweeps.evaluate, 'evaluate', evaluate)
  assert sweeps.run(door.open_sweep('fig6'), sizes.tiny(), [0], tmp_path)
  text = (tmp_path / 'fig6.md').read_text()
  assert '| one, 1 | 0.010 |' in text
  assert '| oracle, 8 | 0.080 |' in text


def test_unknown_names_are_refused():
  for row in {'model.depth': 3}, {'model.num_heads': 'many'}:
    with pytest.raises(ValueError, match='a row of the sweep: '):
      sweeps.configured(sizes.tiny(), row, 0)
  with pytest.raises(ValueError, match='choose one of beyond, fig3, fig4'):
    door.open_sweep('table9')


@pytest.mark.slow
def test_a_real_sweep_from_training_to_table(tmp_path, tiny_config):
  rows = {'8 steps': {}, '2 steps': {'sample.num_steps': 2}}
  sweep = ABC._replace(rows=rows, paper={})
  tiny_config.train.update(num_steps=2, checkpoint_every=2, warmup_steps=0)
  assert sweeps.run(sweep, tiny_config, [0], tmp_path)
  configs = [sweeps.configured(tiny_config, o, 0) for o in rows.values()]
  results = [sweeps.run_row(config, tmp_path) for config in configs]
  assert np.isfinite([sweeps.score_of(found) for found in results]).all()
  assert len(list(tmp_path.glob('runs/*'))) == 1
  assert len(list(tmp_path.glob('runs/*/eval-*/gallery.png'))) == 2
  # Sampled in another way, it was not trained on.
  lines = next(tmp_path.glob('runs/*/metrics.jsonl')).read_text().splitlines()
  assert sum('"loss"' in line for line in lines) == 2
