"""The simulated user, and methods that listen to it."""

import numpy as np
import pytest

from bitseg_jax.evaluation import clicks, obeying


def quarters(size=24):
  rows, columns = np.indices((size, size))
  return (rows * 2 // size * 2 + columns * 2 // size).astype(np.int32)


def records(count=2):
  rng = np.random.default_rng(0)
  colors = rng.integers(0, 255, (4, 3))
  image = colors[quarters()].astype(np.uint8)
  record = {'image': image, 'id_maps': [quarters()]}
  return [record | {'name': str(i)} for i in range(count)]


def test_clicks_are_in_the_middle_of_what_is_wrong():
  true, pred = quarters(), np.minimum(quarters(), 2)
  nothing = np.full(true.shape, -1)
  row, column = clicks.next_click(true, pred, nothing)
  assert true[row, column] in (2, 3)
  assert {row % 12, column % 12} <= {5, 6}
  known = nothing.copy()
  known[row, column] = true[row, column]
  assert clicks.next_click(true, pred, known) is None  # no other is wrong
  assert clicks.next_click(true, true, nothing) is None
  assert clicks.next_click(true, true + 7, nothing) is None


def test_scores_rise_with_clicks_where_they_are_obeyed():
  one_segment = np.zeros((24, 24), np.int32)
  obeyed = lambda image, known: obeying.obey(one_segment, known, image)
  counts = [0, 2, 4, 8]
  found = clicks.score_clicks(records(), obeyed, 24, counts)
  assert set(found) == {'model', 'nearest mark', 'random walker'}
  for scores in found.values():
    assert scores.shape == (2, 4, 2)
    assert (scores[:, -1] >= scores[:, 0]).all()
  assert found['model'][:, 0, 0].max() == 0
  assert found['random walker'][:, -1, 1].min() > 0.95
  assert found['nearest mark'][:, -1, 1].min() > 0.8
  results = {'clicks': counts, 'images': 2, 'median_seconds_per_click': 0.5}
  results['methods'] = {
    name: dict(zip(clicks.SCORED, rows.mean(axis=0).T.tolist(), strict=True))
    for name, rows in found.items()
  }
  *lines, last = clicks.format_results(results).splitlines()
  assert any(line.startswith('random walker  IoU') for line in lines)
  assert last == '2 images; 0.50 s per click (median)'


def test_one_clicked_entity_is_all_there_is():
  known = np.full((24, 24), -1)
  known[3, 4] = 5
  image = records(1)[0]['image'][:24, :24]
  for method in clicks.nearest_mark, clicks.random_walker:
    assert (method(image, known) == 5).all()


def test_nothing_to_click_at_is_said():
  record = records(1)[0]
  record['id_maps'] = [np.full((24, 24), -1)]
  with pytest.raises(ValueError, match='nothing to score: at 24 px'):
    clicks.score_clicks([record], lambda image, known: known, 24, [0])
