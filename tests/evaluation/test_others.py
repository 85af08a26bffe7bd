"""Scores of predictions on disk: the metrics they name, the table, the door."""

import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bitseg_jax import cli, metrics, score
from bitseg_jax.data import outside, procedural
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import others


def noisy(id_map, seed, share=0.2):
  rng = np.random.default_rng(seed)
  return np.where(rng.random(id_map.shape) < share, rng.integers(3), id_map)


def halves(column, shape=(20, 24)):
  return (np.indices(shape)[1] >= column).astype(int)


MAPS = [halves(8), halves(12) + 2 * halves(18), halves(16)]
SAMPLES = [noisy(halves(11), 0), halves(6), noisy(halves(20), 1), halves(3)]


def test_scores_are_those_of_the_metrics():
  found = others.score_image(SAMPLES, MAPS, sets=True).values
  pairs = list(itertools.product(MAPS, SAMPLES))
  each = lambda metric: np.reshape([metric(*p) for p in pairs], (3, 4))
  mean = lambda metric: np.mean([metric(s, MAPS) for s in SAMPLES])
  ari, iou = each(metrics.adjusted_rand_index), each(metrics.hungarian_iou)
  expected = {
    'ari': ari.mean(),
    'iou': iou.mean(),
    'covering': metrics.covering(SAMPLES, MAPS),
    'pri': mean(metrics.rand_index),
    'voi_bits': mean(metrics.variation_of_information),
    'ged': metrics.generalized_energy_distance(
      SAMPLES, MAPS, lambda a, b: 1 - metrics.adjusted_rand_index(a, b)
    ),
    'matched_set_iou': metrics.sets.matched_score(iou),
    'ari_oracle': ari.mean(axis=0).max(),
    'iou_oracle': iou.mean(axis=0).max(),
    'unclaimed': 0,
  }
  assert {k: found[k] for k in expected} == pytest.approx(expected)
  assert 0 < found['pq'] < 1
  assert 0 < found['boundary_f'] < 1
  assert 0 < found['contested_auroc'] < 1


def test_unclaimed_pixels_are_a_segment_or_left_out():
  pred, true = noisy(halves(8), 2), halves(8).copy()
  left = np.indices(pred.shape)[0] < 5
  holes = np.where(left, -1, pred)
  segment = others.score_image([holes], [true], 'segment').values
  painted = others.score_image([np.where(left, 9, pred)], [true]).values
  assert segment == painted | {'unclaimed': 0.25}
  ignore = others.score_image([holes], [true], 'ignore').values
  cropped = others.score_image([pred[5:]], [true[5:]]).values
  same = [*metrics.names('table'), 'pq', 'sq', 'rq']
  assert [ignore[k] for k in same] == [cropped[k] for k in same]
  assert segment['ari'] < ignore['ari']


def test_left_out_pixels_and_empty_annotators_do_not_count():
  part = MAPS[0].copy()
  part[:7] = -1
  nothing = np.full_like(part, -1)
  found = others.score_image(SAMPLES, [part, nothing], sets=True)
  alone = others.score_image(SAMPLES, [part], sets=True)
  cropped = others.score_image([s[7:] for s in SAMPLES], [part[7:]])
  assert found.values == pytest.approx(alone.values, nan_ok=True)
  for name in metrics.names('table'):
    assert found.values[name] == pytest.approx(cropped.values[name])
  empty = others.score_image(SAMPLES, [nothing], sets=True)
  results = others.summarize({'a': found, 'b': empty})
  assert (results['num_images'], results['left_out']) == (1, 1)
  assert results['ari'] == found.values['ari']
  assert results['per_image']['b']['ari'] is None
  # Nor does who labelled nothing that is claimed.
  left = np.indices(part.shape)[1] < 5
  samples, aside = (
    [np.where(left, -1, s) for s in SAMPLES],
    np.where(left, 0, -1),
  )
  both, alone = (
    others.score_image(samples, maps, 'ignore', sets=True)
    for maps in ([MAPS[0], aside], MAPS[:1])
  )
  assert both.values == pytest.approx(alone.values, nan_ok=True)
  assert not np.isnan(both.values['ari'])
  np.testing.assert_array_equal(both.counts['covered'], alone.counts['covered'])


def test_counts_are_pooled_over_images():
  images = [([SAMPLES[0]], MAPS), ([SAMPLES[1]], MAPS[:1])]
  scores = {str(k): others.score_image(*i) for k, i in enumerate(images)}
  found = others.summarize(scores)
  covered = [metrics.covering(s, maps) for s, maps in images]
  assert found['covering'] == pytest.approx(np.mean(covered))
  # as the Berkeley benchmark has it: every annotator weighs the same
  pooled = (3 * covered[0] + covered[1]) / 4
  assert found['covering_pooled'] == pytest.approx(pooled)
  match, table = metrics.panoptic.match, metrics.panoptic.overlaps
  panoptic = [
    np.mean([match(*table(a, samples[0])) for a in maps], axis=0)
    for samples, maps in images
  ]
  panoptic = metrics.panoptic.Matches(*np.sum(panoptic, axis=0))
  expected = metrics.panoptic.quality(panoptic)
  assert {k: found[k] for k in expected} == pytest.approx(expected)
  lines = np.sum([metrics.boundary.match(s[0], m) for s, m in images], axis=0)
  f = metrics.boundary.f_score(metrics.boundary.Matches(*lines))
  assert found['boundary_f'] == pytest.approx(f['boundary_f'])


def scenes(count=3):
  """Procedural scenes, each with its map and a coarser one."""
  drawn = procedural.ProceduralScenes(count, 32, seed=1)
  records = [drawn[i] for i in range(count)]
  return [
    r | {'id_maps': [r['id_maps'][0], r['id_maps'][0] // 2]} for r in records
  ]


@pytest.fixture(scope='module')
def places(tmp_path_factory):
  """What two methods left of the scenes: one map, or the annotators' two."""
  root = tmp_path_factory.mktemp('predictions')
  for name in 'flat', 'exact':
    (root / name).mkdir()
  for record in scenes():
    name, ids = record['name'], record['id_maps']
    np.save(root / 'flat' / f'{name}.npy', np.zeros((16, 16), int))
    np.save(root / 'exact' / f'{name}.npy', np.stack(ids))
  return [str(root / 'flat'), str(root / 'exact')]


def score_methods(source, places, **how):
  scores = others.score_methods(source, places, **how)
  return {place: others.summarize(s) for place, s in scores.items()}


def test_methods_stand_beside_each_other(places):
  results = score_methods(scenes(), places)
  flat, exact = (results[place] for place in places)
  assert (flat['num_images'], flat['num_samples'], flat['missing']) == (3, 1, 0)
  assert flat['ari'] == flat['boundary_f'] == 0
  assert 'ged' not in flat
  assert exact['num_samples'] == 2
  assert exact['ged'] == pytest.approx(0, abs=1e-12)
  assert exact['matched_set_iou'] == 1
  assert exact['ari'] <= exact['ari_oracle'] < 1
  assert exact['contested_auroc'] == 1
  assert exact['ece'] == 0
  assert 0 < exact['brier'] < 0.1
  json.dumps(results, allow_nan=False)
  lines = others.format_table(results).splitlines()
  columns = 2 + len(others._COLUMNS)  # the method and its images stand before
  assert [len(line.split()) for line in lines[1:3]] == [columns, columns]
  assert lines[1].startswith(places[0])
  assert 'GED' in lines[4]
  assert lines[5].startswith(places[1])
  assert 'truth' in lines[6]


def test_size_to_compare_at(places):
  half, again, whole = (
    score_methods(scenes(), places[1:], image_size=size)[places[1]]
    for size in (16, 16, 0)
  )
  assert half == again
  assert half['matched_set_iou'] == whole['matched_set_iou'] == 1
  assert half['ari'] != whole['ari']


def test_missing_predictions_are_an_error_or_one_region(places):
  source = scenes(5)
  with pytest.raises(FileNotFoundError, match='for 2 of 5 images, such as'):
    score_methods(source, places)
  results = score_methods(source, places, allow_missing=True)
  flat, exact = (results[place] for place in places)
  assert flat['missing'] == exact['missing'] == 2
  assert exact['num_images'] == 5
  for name in (record['name'] for record in source[3:]):
    assert flat['per_image'][name]['ari'] == 0
    assert exact['per_image'][name]['matched_set_iou'] < 1
  with pytest.raises(FileNotFoundError, match='5 of 5'):
    score_methods(source, ['tests'], allow_missing=True)


def test_samples_must_be_as_many_for_all_images(places, tmp_path):
  source = scenes()
  for i, record in enumerate(source):
    ids = record['id_maps'][:1] * (2 + i)
    np.save(tmp_path / f'{record["name"]}.npy', ids)
  with pytest.raises(ValueError, match=r'3 samples of .*, but 2 of images'):
    score_methods(source, [str(tmp_path)])


def call_main(monkeypatch, **values):
  given = {'data': 'scenes', 'split': 'val', 'output': '', 'ignore': []}
  given |= {'format': 'any', 'unclaimed': 'segment', 'order': 'score'}
  given |= {'image_size': 0, 'allow_missing': False}
  flags = SimpleNamespace(**given | values)
  monkeypatch.setattr(score.flags, 'FLAGS', flags)
  return cli.call(score.main)


def test_nothing_to_score_is_no_success(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(splits, 'open_split', lambda *_: scenes())
  for record in scenes():
    np.save(tmp_path / f'{record["name"]}.npy', np.full((16, 16), -1))
  output = tmp_path / 's[1].json'
  given = {'predictions': [str(tmp_path)], 'unclaimed': 'ignore'}
  assert call_main(monkeypatch, **given, output=str(output)) == 1
  assert 'nothing to score' in capsys.readouterr().err.splitlines()[-1]
  assert outside.read_json(output)['methods']  # what is scored is written


def test_ids_that_mean_void_can_be_named_and_are_asked_about(
  monkeypatch, tmp_path, capsys
):
  """255 is void in the files of many other programs."""
  monkeypatch.setattr(splits, 'open_split', lambda *_: scenes())
  for record in scenes():
    ids = record['id_maps'][0].astype(np.uint8) + 1
    ids[:4] = 255
    Image.fromarray(ids).save(tmp_path / f'{record["name"]}.png')
  output = tmp_path / 'a.json'
  given = {'predictions': [str(tmp_path)], 'output': str(output)}
  share = lambda: next(iter(json.loads(output.read_text())['methods'].values()))
  assert call_main(monkeypatch, **given) == 0
  # Once, though three files have it.
  assert capsys.readouterr().err.count('--ignore=255') == 1
  assert share()['unclaimed'] == 0
  assert call_main(monkeypatch, **given, ignore=[255]) == 0
  assert '--ignore' not in capsys.readouterr().err
  assert share()['unclaimed'] == 4 / 32


@pytest.mark.parametrize(
  'values, line',
  [
    ({'data': '/nowhere'}, 'no prepared dataset in /nowhere'),
    ({'output': '/nowhere/b.json'}, '/nowhere/b.json: its folder'),
    ({'output': 'tests'}, '--output=tests'),
    ({'output': 'pyproject.toml'}, '--output=pyproject.toml'),
  ],
)
def test_what_is_asked_wrongly_is_said_in_one_line(
  monkeypatch, values, line, capsys
):
  assert call_main(monkeypatch, predictions=['x'], **values) == 1
  (said,) = capsys.readouterr().err.splitlines()
  assert re.match(f'error: .*{line}', said)


def test_only_scores_are_overwritten_and_written_as_printed(
  monkeypatch, places, tmp_path, capsys
):
  monkeypatch.setattr(splits, 'open_split', lambda *_: scenes())
  mine, again = tmp_path / 'mine.json', tmp_path / 'scores.json'
  mine.write_text('[{"segmentation": []}]')
  asked = {'predictions': places}
  assert call_main(monkeypatch, **asked, output=str(mine)) == 1
  assert mine.read_text() == '[{"segmentation": []}]'
  for _ in range(2):
    assert call_main(monkeypatch, **asked, output=str(again)) == 0
    written = json.loads(again.read_text())
    assert written['unclaimed'] == 'segment'
    printed = capsys.readouterr().out
    assert others.format_table(written['methods']) in printed
