"""One answer from many samples: agreement, invariance, never worse."""

import numpy as np
import pytest

from bitseg_jax import metrics
from bitseg_jax.segmenting import consensus


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
