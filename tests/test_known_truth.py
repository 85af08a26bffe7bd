"""The known truth: samples of it compare well with it, others do not."""

import importlib.util

import numpy as np
import pytest

from bitseg_jax import metrics
from bitseg_jax.data.ambiguous import AmbiguousScenes

spec = importlib.util.spec_from_file_location('k', 'examples/known_truth.py')
known_truth = importlib.util.module_from_spec(spec)
spec.loader.exec_module(known_truth)


@pytest.fixture(scope='module')
def modes():
  return AmbiguousScenes(3, 24).modes(2)


def draw(modes, count, p=None):
  p = modes.probabilities if p is None else p
  drawn = np.random.default_rng(0).choice(len(p), count, p=p)
  return modes.id_maps[drawn]


def test_samples_of_the_truth_are_at_no_distance_and_calibrated(modes):
  samples = draw(modes, 300)
  found = known_truth.compare(samples, modes.id_maps, modes.probabilities)
  np.testing.assert_allclose(found.shares, modes.probabilities, atol=0.06)
  assert abs(found.ged) < 0.005
  summary = known_truth.summarize([found])
  assert summary['ece'] < 0.02
  assert summary['confidence_error'] < 0.05
  shuffled = (samples + 3) % 7  # ids carry no meaning
  again = known_truth.compare(shuffled, modes.id_maps, modes.probabilities)
  assert again.ged == pytest.approx(found.ged)


def test_one_mode_alone_is_further_away_and_overconfident(modes):
  likeliest = np.eye(12)[modes.probabilities.argmax()]
  truth = modes.id_maps, modes.probabilities
  one = known_truth.compare(draw(modes, 40, likeliest), *truth)
  all_modes = known_truth.compare(draw(modes, 40), *truth)
  assert one.shares.max() == 1
  assert one.ged > all_modes.ged + 0.01
  summaries = [known_truth.summarize([c]) for c in (one, all_modes)]
  assert summaries[0]['ece'] > summaries[1]['ece']
  assert summaries[0]['confidence'] == 1 > summaries[0]['true_confidence']


def test_the_chance_of_a_pair_is_the_mean_over_all_annotations(modes):
  pairs = metrics.uncertainty.draw_pairs(np.ones((24, 24), bool), 300)
  each = np.round(modes.probabilities * 64).astype(int)
  np.testing.assert_allclose(each / 64, modes.probabilities)
  enumerated = modes.id_maps.repeat(each, axis=0)
  together = metrics.uncertainty.share_together
  found = together(modes.id_maps, pairs, modes.probabilities)
  np.testing.assert_allclose(found, together(enumerated, pairs), atol=1e-12)
