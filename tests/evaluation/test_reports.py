"""Reports: plots fit their data and come in the format asked for."""

import types

import pytest

from bitseg_jax import main
from bitseg_jax.configs import base
from bitseg_jax.evaluation import ensembles, reports

SUMMARY = {
  str(count): {
    answer: dict.fromkeys(('ari', 'iou', 'covering'), 0.5 + count / 100)
    for answer in ensembles.ANSWERS
  }
  for count in (1, 2, 4)
}


def test_the_plot_by_number_of_samples_spans_its_data(tmp_path, monkeypatch):
  drawn, save = [], reports.pictures.save_figure
  monkeypatch.setattr(
    reports.pictures,
    'save_figure',
    lambda figure, path: drawn.append(figure) or save(figure, path),
  )
  reports.draw_by_num_samples(SUMMARY, tmp_path / 'a.svg')
  for axes in drawn[0].axes:
    low, high = axes.get_ylim()
    assert 0.5 < low < 0.51 and 0.54 < high < 0.55
    assert axes.get_xlabel() == 'Samples per image'
    assert 'higher is better' in axes.get_ylabel()
  svg = (tmp_path / 'a.svg').read_text()
  assert '<image' not in svg and 'Covering (higher' in svg


@pytest.mark.parametrize('kind', ['png', 'pdf'])
def test_the_command_hands_the_format_on(tmp_path, monkeypatch, kind):
  asked = []

  def evaluate(config, workdir, output, plot_format):
    asked.append(plot_format)
    return {}

  config = base.get_config()
  monkeypatch.setattr(main.checkpoint, 'read_config', lambda _: config)
  monkeypatch.setattr(main.evaluate, 'evaluate', evaluate)
  monkeypatch.setattr(main.reports, 'format_results', lambda _: '')
  # Already chosen, so that it is not set to a folder of this test.
  monkeypatch.setattr(
    main.jax, 'config', types.SimpleNamespace(jax_compilation_cache_dir='x')
  )
  flags = {'workdir': tmp_path, 'config': None, 'mode': 'eval', 'format': kind}
  assert main._run(types.SimpleNamespace(**flags)) == 0
  assert asked == [kind]
