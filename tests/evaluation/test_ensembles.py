"""Answers from N samples: what each must equal, whatever the ids."""

import numpy as np
import pytest

from bitseg_jax import metrics
from bitseg_jax.evaluation import ensembles


def noisy(truth, share, count, seed=0):
  """Copies of a map in which each pixel is wrong with some chance."""
  rng = np.random.default_rng(seed)
  wrong = rng.random((count, *truth.shape)) < share
  return np.where(wrong, rng.integers(0, 4, wrong.shape), truth)


def score(samples, annotations):
  pairs = ensembles.score_pairs(samples, annotations)
  return ensembles.score(samples, annotations, pairs)


@pytest.fixture(scope='module')
def example():
  """Four quarters, 8 noisy samples; one annotator quarters, one halves."""
  truth = np.kron([[0, 1], [2, 3]], np.ones((8, 8), int))
  samples = noisy(truth, 0.4, 8)
  return truth, samples, score(samples, [truth, truth // 2])


def values(found):
  """All numbers of what `score` returns."""
  return [v for answers in found.values() for v in list_of(answers)]


def list_of(answers):
  return [value for scores in answers.values() for value in scores.values()]


def test_numbers_of_samples_are_the_powers_of_two(example):
  truth, samples, found = example
  assert list(found) == ['1', '2', '4', '8']
  assert list(found['1']) == ['one', 'set']
  assert list(found['8']) == ['medoid', 'consensus', 'oracle', 'set']
  more = np.concatenate([samples, samples[:3]])
  assert list(score(more, [truth])) == list(found)


def test_each_answer_is_what_its_metric_says(example):
  truth, samples, found = example
  annotations = truth, truth // 2
  mean = lambda score, pred: np.mean([score(a, pred) for a in annotations])
  ari = [mean(metrics.adjusted_rand_index, s) for s in samples]
  assert found['1']['one']['ari'] == pytest.approx(np.mean(ari))
  assert found['4']['oracle']['ari'] == pytest.approx(max(ari[:4]))
  voi = [metrics.variation_of_information(s, annotations) for s in samples]
  assert found['8']['oracle']['voi_bits'] == pytest.approx(min(voi))
  assert min(ari[:2]) <= found['2']['medoid']['ari'] <= max(ari[:2])
  ged = metrics.generalized_energy_distance(
    samples[:4],
    annotations,
    lambda a, b: 1 - metrics.adjusted_rand_index(a, b),
  )
  assert found['4']['set']['ged'] == pytest.approx(ged)


def test_consensus_beats_every_noisy_sample(example):
  _, _, found = example
  assert (
    found['8']['consensus']['ari']
    > found['8']['oracle']['ari']
    > found['1']['one']['ari']
  )


def test_ids_mean_nothing(example):
  truth, samples, found = example
  renamed = score(7 - samples, [truth + 5, truth // 2])
  np.testing.assert_allclose(values(renamed), values(found))


def test_what_nobody_labelled_counts_nowhere(example):
  truth, samples, _ = example
  blank = np.full_like(truth, -1)
  (kept,) = metrics.labelled([truth, blank])
  assert kept is truth
  half, other = truth.copy(), samples[:2].copy()
  half[:, 8:], other[:, :, 8:] = -1, 0  # region scores must not see it
  seen = [score(s, [half])['1']['one'] for s in (samples[:2], other)]
  assert seen[0] == pytest.approx(seen[1])


def test_summary_is_the_mean_over_images(example):
  truth, samples, _ = example
  found = [score(s, [truth]) for s in (samples[:2], samples[2:4])]
  summary = ensembles.summarize(found)
  each = [of_image['2']['medoid']['iou'] for of_image in found]
  assert summary['2']['medoid']['iou'] == pytest.approx(np.mean(each))
  # One annotator cannot disagree.
  assert summary['2']['set']['contested_auroc'] is None


def test_table_has_a_line_per_answer(example):
  _, _, found = example
  summary = ensembles.summarize([found])
  lines = ensembles.format_table(summary).splitlines()
  assert len(lines) == 2 + 1 + 3 * 3
  ari = f'{found["8"]["consensus"]["ari"]:.3f}'
  assert lines[-2].startswith(f'| 8 | consensus | {ari} |')
  assert len({line.count('|') for line in lines}) == 1
