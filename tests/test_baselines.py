"""What a model must beat: the baselines' scores are what they claim to be."""

import itertools
import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from bitseg_jax import IGNORE_ID, baselines, cli, metrics
from bitseg_jax.data import procedural
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import draw_samples, evaluate
from bitseg_jax.runs import devices

PERFECT = [  # what each score has where both agree
  float(metrics.SCORES[name].higher_is_better)
  for name in metrics.names('table')
]


def scenes(annotate, size=32):
  """Two procedural scenes, whose annotators `annotate` makes of a map."""
  drawn = procedural.ProceduralScenes(2, size, seed=1)
  return [
    drawn[i] | {'id_maps': annotate(drawn[i]['id_maps'][0])} for i in range(2)
  ]


def halve(id_map):
  """The same map, its left half told apart from its right."""
  return 2 * id_map + (np.arange(id_map.shape[1]) < id_map.shape[1] // 2)


def means(result):
  return [result[metric] for metric in metrics.names('table')]


@pytest.mark.parametrize('shape', [(12, 20), (9, 9), (31, 7)])
def test_grid_cuts_equal_cells(shape):
  cells = baselines.grid(np.zeros((*shape, 3), np.uint8), 3)
  assert cells.shape == shape
  ids, areas = np.unique(cells, return_counts=True)
  assert ids.tolist() == list(range(9))
  least, most = (
    np.prod(np.floor_divide(shape, 3)),
    np.prod(-(-np.array(shape) // 3)),
  )
  assert least <= areas.min() and areas.max() <= most
  assert all((np.diff(cells, axis=axis) >= 0).all() for axis in (0, 1))


def test_every_method_scores_between_chance_and_the_annotators():
  results = baselines.score_source(scenes(lambda ids: [ids, 9 - ids]), 32)
  methods = ['one region', 'grid', 'SLIC', 'Felzenszwalb']
  assert list(results) == [*methods, 'annotators']
  assert means(results['annotators']) == PERFECT
  assert results['one region']['ari'] == 0
  for name in 'SLIC', 'Felzenszwalb':
    assert 0.1 < results[name]['ari'] < 1
  # looking at the photo helps
  assert results['Felzenszwalb']['ari'] > results['grid']['ari']
  head, *lines = baselines.format_table(results).splitlines()
  end = head.index('ARI') + len('ARI')
  for line, result in zip(lines, results.values(), strict=True):
    assert line[end - 5 : end] == f'{result["ari"]:.3f}'
  assert 'n_segments=6' in lines[2]
  # One annotator alone is not compared.
  assert list(baselines.score_source(scenes(lambda i: [i]), 32)) == methods


def test_annotators_are_compared_both_ways_and_only_with_others():
  results = baselines.score_source(scenes(lambda i: [i, halve(i)]), 32)
  both = [
    metrics.region_scores(*pair)
    for record in scenes(lambda i: [i, halve(i)])
    for pair in itertools.permutations(record['id_maps'])
  ]
  np.testing.assert_allclose(
    means(results['annotators']), np.mean(both, axis=0)
  )


def test_padding_and_unlabelled_pixels_do_not_count():
  """In a flat photo whose labelled part is one region, one region is right."""

  def annotate(id_map):
    labelled = np.full_like(id_map[:12], IGNORE_ID)
    labelled[:4] = 7
    return [labelled]

  records = scenes(annotate)
  for record in records:
    record['image'] = np.full((12, 32, 3), 90, np.uint8)
  results = baselines.score_source(records, 64)
  for name in 'one region', 'Felzenszwalb':
    assert means(results[name]) == PERFECT
  # of the 3 x 3 cells of the photo (not of its padded square) 3 are labelled
  shares = np.bincount(np.arange(64) * 3 // 64) / 64
  bits = -(shares * np.log2(shares)).sum()
  assert results['grid']['voi_bits'] == pytest.approx(bits)


def test_annotators_who_labelled_nothing_are_left_out():
  records = scenes(lambda ids: [ids, ids])
  alone = baselines.score_source(records, 32)
  empty = np.full_like(records[0]['id_maps'][1], IGNORE_ID)
  records[0]['id_maps'][1] = empty
  results = baselines.score_source(records, 32)
  assert means(results['grid']) == means(alone['grid'])
  assert results['grid']['num_images'] == 2
  records[0]['id_maps'] = [empty]
  results = baselines.score_source(records, 32)
  assert {r['num_images'] for r in results.values()} == {1}


def test_scores_are_those_of_evaluate():
  """The same prediction, scored as a model's is, scores the same."""
  records = scenes(lambda ids: [ids, halve(ids)], size=40)
  for record, crop in zip(records, [np.s_[:30], np.s_[:, :30]], strict=True):
    record['image'] = record['image'][crop]
    record['id_maps'] = [id_map[crop] for id_map in record['id_maps']]
    blank = np.full_like(record['id_maps'][0], IGNORE_ID)
    record['id_maps'].append(blank)  # whoever labelled nothing is left out

  def sample(params, seen, size, labels, seed):
    cells = [baselines.grid(np.empty((*hw, 3)), 3) for hw in np.asarray(size)]
    padded = [np.pad(c, [(0, 32 - n) for n in c.shape]) for c in cells]
    x_hat = np.stack(padded)[..., None].astype(np.float32)
    return jax.device_put(x_hat, devices.split_on(mesh))

  mesh = devices.make_mesh()
  codec = SimpleNamespace(decode=lambda x: x[..., 0].astype(np.int32))
  parts = SimpleNamespace(image_size=32, code_size=32, codec=codec)
  functions = draw_samples.Functions(lambda params, image: image, sample)
  options = evaluate.Options(batch_size=mesh.size)
  scores = evaluate.score_samples(
    functions, None, parts, records, mesh, options
  )
  summary = evaluate.summarize(scores)
  result = baselines.score_source(records, 32)['grid']
  for name, value in summary.items():
    assert result[name] == pytest.approx(value)


def call_main(monkeypatch, **values):
  given = {'split': 'val', 'image_size': 32, 'output': ''} | values
  monkeypatch.setattr(baselines.flags, 'FLAGS', SimpleNamespace(**given))
  return cli.call(baselines.main)


def test_door_writes_what_it_prints(monkeypatch, tmp_path, capsys):
  source, path = scenes(lambda ids: [ids, halve(ids)]), tmp_path / 'a.json'
  monkeypatch.setattr(splits, 'open_split', lambda *_: source)
  assert call_main(monkeypatch, data='scenes', output=str(path)) == 0
  written = json.loads(path.read_text())
  results = written.pop('methods')
  assert written == {'data': 'scenes', 'split': 'val', 'image_size': 32}
  assert baselines.format_table(results) in capsys.readouterr().out
  assert results == baselines.score_source(source, 32)


@pytest.mark.parametrize(
  'values, line',
  [
    ({'data': '/nowhere'}, 'no prepared dataset in /nowhere'),
    ({'output': '/nowhere/b.json'}, '/nowhere/b.json: its folder'),
  ],
)
def test_what_is_asked_wrongly_is_said_in_one_line(
  monkeypatch, values, line, capsys
):
  assert call_main(monkeypatch, **{'data': 'x'} | values) == 1
  (said,) = capsys.readouterr().err.splitlines()
  assert re.match(f'error: .*{line}', said)
