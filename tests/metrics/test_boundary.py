"""Boundaries: thinning of skimage, a dense assignment, values by hand."""

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from bitseg_jax import metrics


def regions(seed, shape=(24, 31), count=6):
  """Cells of random points, as uneven as what people draw."""
  points = np.random.default_rng(seed).uniform(0, shape, (count, 2))
  pixels = np.stack(np.indices(shape), axis=-1)[:, :, None]
  return np.linalg.norm(pixels - points, axis=-1).argmin(axis=-1)


def test_boundaries_are_thin_lines_between_ids():
  halves = np.repeat([[7, 7, 7, 2, 2, 2]], 5, axis=0)
  expected = np.zeros((5, 6), bool)
  expected[:, 2] = True
  lines = metrics.boundary.boundaries(halves)
  np.testing.assert_array_equal(lines, expected)
  assert not metrics.boundary.boundaries(np.where(halves == 7, -1, 2)).any()


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('tolerance', [0.001, 0.03, 0.08])
def test_one_annotator_matches_as_a_dense_assignment_does(seed, tolerance):
  pred, true = regions(seed), regions(seed + 100)
  ours, theirs = (
    np.argwhere(metrics.boundary.boundaries(m)) for m in (pred, true)
  )
  distances = np.linalg.norm(ours[:, None] - theirs, axis=-1)
  near = distances <= tolerance * math.hypot(*pred.shape)
  pairs = linear_sum_assignment(np.where(near, distances, 1e6))
  expected = near[pairs].sum()
  matches = metrics.boundary.match(pred, [true], tolerance)
  assert matches == (expected, len(ours), expected, len(theirs))
  if tolerance > 0.01:
    assert 0 < expected < len(ours)


def test_any_annotator_makes_right_and_every_one_counts_for_recall():
  left, right = (np.indices((10, 20))[1] >= column for column in (3, 16))
  left, right = left.astype(int), right.astype(int)
  matches = metrics.boundary.match(left, [left, right, left + right])
  assert matches == (10, 10, 20, 40)
  expected = 2 / 3, 1, 1 / 2
  found = metrics.boundary.f_score(matches).values()
  assert list(found) == pytest.approx(expected)
  both = metrics.boundary.match(left + right, [left, right])
  assert both == (20, 20, 20, 20)


@pytest.mark.parametrize('shift, f', [(1, 1), (2, 1), (3, 0), (9, 0)])
def test_lines_match_within_the_tolerance(shift, f):
  line = np.repeat(np.arange(60)[None] >= 20, 40, axis=0).astype(int)
  moved = np.roll(line, shift, axis=1)
  moved[:, :shift] = 0
  matches = metrics.boundary.match(moved, [line], 2.5 / math.hypot(40, 60))
  assert metrics.boundary.f_score(matches)['boundary_f'] == f


def test_unlabelled_parts_are_not_compared():
  pred, true = regions(0), regions(1)
  true[12:] = -1
  matches = metrics.boundary.match(pred, [true], 0.03)
  pred[13:] = 99  # whatever is predicted there
  assert metrics.boundary.match(pred, [true], 0.03) == matches
  assert matches.predicted < metrics.boundary.boundaries(pred).sum()


def test_ends_of_the_scale():
  some, flat = regions(0), np.zeros((24, 31), int)
  f = lambda *maps: metrics.boundary.f_score(
    metrics.boundary.match(maps[0], maps[1:])
  )
  assert set(f(some, some).values()) == {1.0}
  assert set(f(flat, some).values()) == {0.0}
  assert set(f(some, flat).values()) == {0.0}
  assert all(map(math.isnan, f(flat, flat).values()))
