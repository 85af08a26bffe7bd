"""Codes and channels: golden values, round trips, probabilities."""

import jax.numpy as jnp
import numpy as np
import pytest

from bitseg_jax.codec import make_codec

CODECS = [
  ('analog_bits', 4),
  ('analog_bits', 64),
  ('analog_bits', 1024),
  ('onehot', 16),
  ('rgb', 64),
  ('rgb', 125),
]


def last(x):
  return np.moveaxis(x, 1, -1)


@pytest.mark.parametrize('n', [2, 4, 6, 8])
def test_golden_bits(golden, n):
  codec = make_codec('analog_bits', 2**n)
  value = lambda name: golden[f'bits/{n}/{name}']
  soft = last(value('soft'))
  np.testing.assert_array_equal(
    codec.encode(jnp.asarray(value('labels'))), last(value('encoded'))
  )
  np.testing.assert_array_equal(codec.decode(soft), value('decoded'))
  np.testing.assert_allclose(
    codec.probabilities(soft), last(value('class_probs')), atol=1e-4
  )


@pytest.mark.parametrize(('encoding', 'num_codes'), CODECS)
def test_decode_inverts_encode(encoding, num_codes):
  rng = np.random.default_rng(0)
  # Patches: the rgb decoder keeps clusters of under 20 pixels whole.
  codes = rng.permutation(num_codes)[:4].reshape(2, 2).repeat(8, 0).repeat(8, 1)
  codec = make_codec(encoding, num_codes)
  x = codec.encode(jnp.asarray(codes))
  assert x.shape == (16, 16, codec.channels)
  assert np.abs(x).max() == 1
  np.testing.assert_array_equal(codec.decode(x), codes)
  noisy = x + 0.03 * rng.standard_normal(x.shape)
  np.testing.assert_array_equal(codec.decode(noisy), codes)


@pytest.mark.parametrize(('encoding', 'num_codes'), CODECS)
def test_probabilities(encoding, num_codes):
  codec = make_codec(encoding, num_codes)
  codes = jnp.arange(num_codes).reshape(1, -1)
  x = codec.encode(codes)
  certain = codec.probabilities(x)
  assert certain.shape == (1, num_codes, num_codes)
  np.testing.assert_array_equal(jnp.argmax(certain, -1), codes)
  assert certain[0, jnp.arange(num_codes), codes[0]].min() > 0.99
  soft = np.random.default_rng(0).uniform(-1, 1, x.shape)
  total = codec.probabilities(jnp.asarray(soft)).sum(-1)
  np.testing.assert_allclose(total, 1, rtol=1e-5)


@pytest.mark.parametrize(('encoding', 'num_codes'), CODECS)
def test_ignored_pixels_are_zero(encoding, num_codes):
  codec = make_codec(encoding, num_codes)
  x = codec.encode(jnp.array([[-1, 0], [1, -1]]))
  assert not np.any(x[0, 0]) and not np.any(x[1, 1])
  assert np.all(x[0, 1] != 0)


def test_rgb_clusters_never_merge():
  codec = make_codec('rgb', 8)  # fewer colours than the 125 levels allow
  x = np.zeros((10, 30, 3), np.float32)
  x[:, :10], x[:, 10:20], x[:, 20:] = -1, 0.5, 1
  decoded = codec.decode(x)
  assert len(np.unique(decoded)) == 3


def test_impossible_codecs_are_refused():
  with pytest.raises(ValueError, match='power of two'):
    make_codec('analog_bits', 48)
  with pytest.raises(ValueError, match='125 colours'):
    make_codec('rgb', 126)
  with pytest.raises(ValueError, match='unknown encoding'):
    make_codec('bits', 64)
