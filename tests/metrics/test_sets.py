"""Sets of samples: every matching tried, and the metric they stand for."""

import itertools

import numpy as np
import pytest

from bitseg_jax import metrics


def random_scores(annotations, samples, seed=0):
  return np.random.default_rng(seed).random((annotations, samples))


@pytest.mark.parametrize('shape', [(1, 1), (3, 3), (2, 4), (4, 2), (2, 3)])
def test_matched_score_is_the_best_of_all_matchings(shape):
  scores = random_scores(*shape)
  size = np.lcm(*shape)
  rows = [i for i in range(shape[0]) for _ in range(size // shape[0])]
  columns = [j for j in range(shape[1]) for _ in range(size // shape[1])]
  expected = max(
    np.mean([scores[i, j] for i, j in zip(rows, order, strict=True)])
    for order in set(itertools.permutations(columns))
  )
  assert metrics.sets.matched_score(scores) == pytest.approx(expected)


def test_samples_in_the_annotators_shares_match_fully():
  agreed = np.array([[1, 1, 0, 1.0]] * 3 + [[0, 0, 1.0, 0]])
  assert metrics.sets.matched_score(agreed) == 1
  # though each sample is as good, one entity is drawn twice too often
  assert metrics.sets.matched_score(agreed[:, [0, 2]]) == 0.75


def test_energy_distance_is_that_of_the_maps():
  maps = np.random.default_rng(0).integers(4, size=(7, 9, 11))
  distance = lambda a, b: 1 - metrics.adjusted_rand_index(a, b)
  all_pairs = np.array([[distance(a, b) for b in maps] for a in maps])
  of_samples, rest = np.split(all_pairs, [4])
  value = metrics.sets.energy_distance(
    rest[:, :4], rest[:, 4:], of_samples[:, :4]
  )
  expected = metrics.generalized_energy_distance(maps[:4], maps[4:], distance)
  assert value == pytest.approx(expected)
