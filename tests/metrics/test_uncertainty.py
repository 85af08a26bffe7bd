"""Calibration and uncertainty: scikit-learn, brute force, properties."""

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from bitseg_jax.metrics import uncertainty


def halves(column, shape=(20, 30)):
  return (np.indices(shape)[1] >= column).astype(int)


def test_pairs_are_valid_half_near_and_seeded():
  valid = np.random.default_rng(0).random((60, 100)) < 0.5
  first, second = uncertainty.draw_pairs(valid, 1000, seed=3)
  assert len(first) == len(second) == 1000
  assert valid.ravel()[[first, second]].all() and (first != second).all()
  ends = [np.stack(np.divmod(pixels, 100)) for pixels in (first, second)]
  apart = abs(ends[0] - ends[1]).max(axis=0)
  assert (apart[:500] <= 10).all()
  assert (apart[500:] > 10).all()
  # near in any direction, as often as any other
  steps = (ends[1] - ends[0])[:, :500]
  assert abs(steps.mean(axis=1)).max() < 1
  again, other = (uncertainty.draw_pairs(valid, 1000, seed=s) for s in (3, 4))
  np.testing.assert_array_equal(again, (first, second))
  assert (other[0] != first).any()


@pytest.mark.parametrize('shape', [(0, 0), (1, 1), (1, 2)])
def test_too_few_pixels_give_fewer_pairs(shape):
  first, second = uncertainty.draw_pairs(np.ones(shape, bool), 20)
  assert len(first) == len(second) < 20
  assert (first != second).all()
  nothing = uncertainty.draw_pairs(np.zeros((9, 9), bool))
  assert [len(ends) for ends in nothing] == [0, 0]


def test_share_counts_maps_whatever_their_ids():
  maps = np.array([[[1, 1, 2]], [[5, 7, 7]], [[0, 0, 0]]])
  pairs = np.array([0, 1, 0]), np.array([1, 2, 2])
  share = uncertainty.share_together(maps, pairs)
  assert share.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3])


def test_calibration_agrees_with_sklearn():
  rng = np.random.default_rng(0)
  predicted = rng.random(500)
  asked = rng.random((500, 4)) < predicted[:, None] ** 2
  counts = uncertainty.count_reliability(predicted, asked.mean(axis=1))
  result = uncertainty.calibration(counts)
  votes, forecasts = asked.ravel(), predicted.repeat(4)
  assert result['brier'] == pytest.approx(brier_score_loss(votes, forecasts))
  observed, mean = calibration_curve(votes, forecasts, n_bins=uncertainty.BINS)
  bins = np.array(result['bins'])
  np.testing.assert_allclose(bins[:, :2], np.stack([mean, observed], axis=1))
  assert bins[:, 2].sum() == pytest.approx(1)
  expected = bins[:, 2] @ abs(bins[:, 0] - bins[:, 1])
  assert result['ece'] == pytest.approx(expected)


def test_counts_of_images_add_up():
  pairs = np.random.default_rng(0).integers(0, 6, (2, 300)) / 5
  parts = pairs[:, :100], pairs[:, 100:]
  found = sum(uncertainty.count_reliability(*part) for part in parts)
  np.testing.assert_allclose(found, uncertainty.count_reliability(*pairs))


@pytest.mark.parametrize('asked', [3, 7, 10, 29])
def test_shares_fall_into_the_bin_they_begin(asked):
  shares = np.arange(asked + 1) / asked
  counts = uncertainty.count_reliability(shares, shares)
  bins = np.minimum(np.arange(asked + 1) * 10 // asked, 9)
  assert counts[:, 0].tolist() == np.bincount(bins, minlength=10).tolist()
  assert uncertainty.calibration(counts)['ece'] == 0


def test_sure_and_wrong_is_the_worst():
  wrong = uncertainty.count_reliability(np.ones(5), np.zeros(5))
  worst = {'ece': 1, 'brier': 1, 'bins': [[1, 0, 1]]}
  assert uncertainty.calibration(wrong) == worst
  nothing = uncertainty.calibration(np.zeros((10, 4)))
  assert math.isnan(nothing['ece']) and nothing['bins'] == []


def test_disagreement_is_one_less_the_iou_of_a_pixels_segments():
  maps = [halves(10), 5 * halves(10) + 1, halves(20)]
  found = uncertainty.disagreement(maps)[0, [0, 15, 29]]
  # Pairs of maps: the same; then 10 of 20, 10 of 30 and 10 of 20 columns.
  ious = np.array([1 / 2, 1 / 3, 1 / 2])
  np.testing.assert_allclose(found, 2 / 3 * (1 - ious), rtol=1e-6)
  # Where a segment is the same in all, it is certain, whatever its id.
  quarters = 700 - 9 * halves(10)
  quarters[:5, :10] = 2
  unsure = uncertainty.disagreement([halves(10), quarters])
  np.testing.assert_array_equal(unsure > 0, halves(10) == 0)


def test_disagreement_leaves_out_who_did_not_label():
  maps = [halves(10), halves(20), halves(20)]
  maps[1][:5] = maps[2][:5] = -1
  found = uncertainty.disagreement(maps)
  assert np.isnan(found[:5]).all()
  cropped = uncertainty.disagreement([m[5:] for m in maps])
  np.testing.assert_array_equal(found[5:], cropped)


@pytest.mark.parametrize('levels', [2, 5, 10_000])
def test_contested_auroc_agrees_with_sklearn(levels):
  maps = [halves(10), halves(15), halves(10)]
  said = np.random.default_rng(0).integers(levels, size=(20, 30)) / levels
  contested = uncertainty.disagreement(maps) > 0.5
  expected = roc_auc_score(contested.ravel(), said.ravel())
  found = uncertainty.contested_auroc(said, maps)
  assert found == pytest.approx(expected)
  assert math.isnan(uncertainty.contested_auroc(said, [maps[0]] * 2))


def test_contested_pixels_are_those_of_other_entities():
  """One cuts a strip in three, one leaves it whole; both agree on the rest."""
  whole = np.repeat([[0, 1, 2]], 10, axis=0).repeat(10, axis=1)
  cut = whole.copy()
  cut[:, 24:] = 3
  cut[:, 27:] = 4
  strip = whole == 2
  area = uncertainty.contested_auroc
  maps = [whole, cut]
  assert area(strip.astype(float), maps) == 1
  assert area(1 - strip.astype(float), maps) == 0
  assert area(np.zeros(strip.shape), maps) == 0.5
  assert math.isnan(area(strip.astype(float), [whole]))
  # two columns between borders drawn apart belong to other entities
  aside = np.roll(whole, 1, axis=1)
  aside[:, 0] = 0
  between = aside != whole
  assert between.sum() == 20
  assert area(between.astype(float), [whole, aside]) == 1
