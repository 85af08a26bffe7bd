"""One answer from many samples: agreement, invariance, never worse."""

import numpy as np
import pytest

from bitseg_jax import metrics
from bitseg_jax.evaluation import consensus


def noisy_samples(seed, num_samples=6, noise=0.1, size=24):
  """Four quarters that move about, under noise."""
  rng = np.random.default_rng(seed)
  y, x = np.indices((size, size))
  maps = []
  for _ in range(num_samples):
    row, column = rng.integers(size // 3, 2 * size // 3, 2)
    id_map = 2 * (y >= row) + (x >= column)
    noisy = rng.random(id_map.shape) < noise
    maps.append(np.where(noisy, rng.integers(0, 8, id_map.shape), id_map))
  return np.array(maps, np.int32)


def test_where_all_agree_that_is_the_consensus():
  sample = noisy_samples(0)[0]
  agreed = consensus.consensus(np.stack([sample, 7 - sample, sample]))
  assert metrics.adjusted_rand_index(sample, agreed) == 1
  assert agreed.dtype == np.int32
  for one in (sample[None], np.zeros((3, 1, 1), int), np.zeros((2, 4, 4), int)):
    found = consensus.consensus(one)
    assert metrics.adjusted_rand_index(one[0], found) == 1


@pytest.mark.parametrize('seed', range(4))
def test_ids_and_order_of_samples_do_not_matter(seed):
  samples = noisy_samples(seed)
  expected = consensus.consensus(samples)
  rng = np.random.default_rng(seed)
  renamed = [rng.permutation(90)[sample] for sample in samples]
  shuffled = np.stack(renamed)[rng.permutation(len(samples))]
  np.testing.assert_array_equal(consensus.consensus(shuffled), expected)
  # Ids come in the order of their first pixels.
  _, first = np.unique(expected, return_index=True)
  assert (np.diff(first) > 0).all()


@pytest.mark.parametrize('max_atoms', [1024, 20])
@pytest.mark.parametrize('noise', [0, 0.1, 0.5])
def test_never_worse_than_the_medoid(monkeypatch, noise, max_atoms):
  monkeypatch.setattr(consensus, 'MAX_ATOMS', max_atoms)
  gains = []
  for seed in range(5):
    samples = noisy_samples(seed, noise=noise)
    medoid = samples[consensus.medoid(samples)]
    found = consensus.consensus(samples)
    gains.append(
      consensus.mean_ari(found, samples) - consensus.mean_ari(medoid, samples)
    )
    assert len(np.unique(found)) <= len(np.unique(medoid))
  assert min(gains) >= 0
  if noise:
    assert max(gains) > 0.01


def test_the_majority_decides():
  left = np.repeat([[0, 0, 0, 1, 1, 1, 1, 1]], 8, axis=0)
  right = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 8, axis=0)
  samples = np.stack([left, right, right])
  speck = samples.copy()
  for n in range(3):
    speck[n, 2 * n, 6] = 5  # each has its own, nobody else's
  found = consensus.consensus(speck)
  assert metrics.adjusted_rand_index(right, found) == 1


def test_regions_are_never_cut_and_decide_by_majority():
  left = np.repeat([[0, 0, 0, 1, 1, 1, 1, 1]], 8, axis=0)
  regions = np.repeat([0, 1, 2, 3], 8).reshape(1, 32).repeat(32, axis=0)
  found = consensus.consensus(np.stack([left] * 3), regions)
  # The model's border lies within the second region, in its middle.
  assert found.shape == (32, 32) and found.dtype == np.int32
  for region in range(4):
    assert len(np.unique(found[regions == region])) == 1
  assert (found[:, 0] != found[:, 31]).all()
  regions[:, 8:11] = 0  # now one region ends nearly where the model's does
  found = consensus.consensus(np.stack([left] * 3), regions)
  np.testing.assert_array_equal(found, np.where(regions == 0, 0, 1))


@pytest.mark.parametrize('seed', range(3))
def test_the_objective_of_regions_is_the_mean_over_pairs_of_pixels(seed):
  samples = noisy_samples(seed, size=12)
  rng = np.random.default_rng(seed)
  regions = np.arange(36).reshape(6, 6).repeat(2, 0).repeat(2, 1)
  together, seen = consensus._count_pairs(
    regions, [((0, 0, 12, 12), samples, 1.0)]
  )
  labels = rng.integers(0, 4, 36)
  value, mean = consensus._expected_ari(together, seen, labels)
  s = np.mean([x.ravel()[:, None] == x.ravel() for x in samples], axis=0)
  own = labels[regions].ravel()[:, None] == labels[regions].ravel()
  off = ~np.eye(144, dtype=bool)
  assert mean == pytest.approx(s[off].mean())
  gained = (s - mean)[own & off].sum()
  most = (own & off).sum() * (0.5 - mean) + s[off].sum() / 2
  assert value == pytest.approx(gained / most)


def test_samples_of_a_part_count_within_it():
  rows, columns = np.indices((32, 32))
  regions = rows // 4 * 8 + columns // 4
  whole = np.zeros((4, 8, 8), int)
  whole[:, :, 4:] = 1  # the whole photo shows halves
  part = np.zeros((8, 8, 8), int)
  part[:, :4] = 1  # and its right half two quarters
  found = consensus.consensus(whole, regions, [((0, 16, 32, 32), part, 1)])
  expected = np.where(columns < 16, 0, np.where(rows < 16, 1, 2))
  np.testing.assert_array_equal(found, expected)
  few = consensus.consensus(whole, regions, [((0, 16, 32, 32), part[:2], 1)])
  np.testing.assert_array_equal(few, columns // 16)


def test_other_partitions_count_as_much_as_is_said():
  rows, columns = np.indices((32, 32))
  regions = rows // 4 * 8 + columns // 4
  samples = np.zeros((4, 8, 8), int)
  samples[:, :, 4:] = 1  # all of them show halves
  quarters = 2 * (rows // 16) + columns // 16
  box = 0, 0, 32, 32
  few = consensus.consensus(samples, regions, [(box, quarters[None], 1.0)])
  np.testing.assert_array_equal(few, columns // 16)
  many = consensus.consensus(samples, regions, [(box, quarters[None], 9.0)])
  np.testing.assert_array_equal(many, quarters)


def test_trust_is_that_of_a_sample():
  samples = noisy_samples(0, num_samples=20)
  # Each sample is one of its own, so a new one is trusted nearly as much.
  new = noisy_samples(1, num_samples=5)
  trusted = consensus.trust(new, samples)
  assert 0.9 < trusted.mean() <= 1
  np.testing.assert_array_equal(consensus.trust(9 - new, samples), trusted)
  chance = np.random.default_rng(0).integers(0, 4, samples[0].shape)
  unlike = consensus.trust([chance, np.zeros_like(chance)], samples)
  assert unlike[0] < 0.05 and unlike[1] == 0


def test_regions_may_leave_all_segments_of_the_medoid():
  """Three samples have a square each elsewhere in one that they share."""
  regions = np.arange(16).reshape(4, 4).repeat(4, 0).repeat(4, 1)
  samples = np.zeros((5, 4, 4), int)
  samples[:, :, 2:] = 1
  samples[:4, 0, 0] = 2
  samples[0, 0, 0] = 0  # the medoid's choice does not bind the others
  found = consensus.consensus(samples, regions)
  assert len(np.unique(found)) == 3
  assert len(np.unique(found[:4, :4])) == 1


def test_stability_is_how_well_segments_are_found_again():
  halves = np.repeat([[0, 0, 1, 1]], 4, axis=0)
  quarters = halves.copy()
  quarters[:2, :2] = 2
  np.testing.assert_allclose(
    consensus.stability(halves, [9 - halves, quarters]), [0.75, 1]
  )


def test_medoid_is_in_the_middle():
  a = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 4, axis=0)
  b = np.repeat([[0, 0, 0, 1, 1, 1, 1, 1]], 4, axis=0)
  c = np.repeat([[5, 5, 3, 3, 3, 3, 3, 3]], 4, axis=0)
  assert consensus.medoid(np.stack([a, b, c])) == 1
  assert consensus.medoid(np.stack([b, a, c])) == 0
  assert consensus.medoid(np.stack([c, c])) == 0


def test_doubt_is_where_samples_differ_and_nowhere_else():
  columns = np.indices((30, 60))[1]
  samples = np.stack([columns >= 10] * 8).astype(int)
  for n in range(8):
    samples[n] += columns >= 40 + n  # a border that moves
  answer = samples[4]
  found = consensus.doubt(answer, samples)
  assert found.dtype == np.float32 and 0 <= found.min() <= found.max() <= 1
  assert found[:, 5:20].max() < 0.01  # all agree on this border
  assert found[:, 40:47].min() > 5 * found[:, 20:34].max()
  renamed = consensus.doubt(2 - answer, 2 - samples)
  np.testing.assert_array_equal(renamed, found)
  assert consensus.doubt(answer, answer[None].repeat(3, 0)).max() == 0
  assert consensus.doubt(answer[:1, :1] * 0, samples[:, :1, :1]).shape == (1, 1)
