"""Segmenting photos of which something is known, or from a first guess."""

import numpy as np
import pytest

from bitseg_jax import metrics
from bitseg_jax.configs import quickstart
from bitseg_jax.runtime import experiment
from bitseg_jax.segmenting.segmenter import Segmenter


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


@pytest.fixture(scope='module')
def seeing_model(random_run):
  """A network that sees prompts, with random weights."""
  other = Segmenter.from_checkpoint(random_run)
  config = other._config.copy_and_resolve_references()
  config.diffusion.prompt_rate = 0.5
  parts = experiment.build(config)
  params = dict(other._params)
  kernel = np.asarray(params['stem']['kernel'])
  wide = np.concatenate([kernel, kernel[:, :, : parts.codec.channels]], axis=2)
  params['stem'] = {**params['stem'], 'kernel': wide}
  return Segmenter(parts, params, config.sample, config=config)


def regions(shape=(30, 47)):
  rows, columns = np.indices(shape)
  return (rows * 3 // shape[0] * 3 + columns * 3 // shape[1]).astype(np.int32)


def random_marks(count, seed=0):
  known = np.full((30, 47), -1, np.int32)
  rng = np.random.default_rng(seed)
  known.ravel()[rng.permutation(known.size)[:count]] = rng.integers(0, 9, count)
  return known


@pytest.mark.parametrize('which', ['model', 'seeing_model'])
def test_any_known_pixels_are_obeyed(which, request, draw_photo):
  segmenter = request.getfixturevalue(which)
  photo = draw_photo(0, 30, 47)
  for count in (1, 5, 300):
    known = random_marks(count, count)
    said = known >= 0
    result = segmenter.segment(photo, 2, known=known)
    for id_map in (result.id_map, *result.samples):
      ari = metrics.adjusted_rand_index(known[said], id_map[said])
      assert ari == 1
    assert result.confidence.shape == (result.id_map.max() + 1,)
  everything = segmenter.segment(photo, 2, known=regions())
  assert metrics.adjusted_rand_index(regions(), everything.id_map) == 1


@pytest.mark.parametrize('which', ['model', 'seeing_model'])
def test_nothing_known_is_the_plain_sampler(which, request, draw_photo):
  segmenter, photo = request.getfixturevalue(which), draw_photo(0, 30, 47)
  plain = segmenter.segment(photo, 2)
  nothing = np.full((30, 47), -1)
  for given in ({'known': nothing}, {'start': nothing}):
    same = segmenter.segment(photo, 2, **given)
    np.testing.assert_array_equal(same.id_map, plain.id_map)
    np.testing.assert_array_equal(same.samples, plain.samples)


def test_what_is_known_reaches_the_network(seeing_model, model, draw_photo):
  photo, known = draw_photo(0, 30, 47), random_marks(6)
  for segmenter in (seeing_model, model):
    steered = segmenter.segment(photo, known=known).id_map
    plain = segmenter.segment(photo).id_map
    assert (metrics.adjusted_rand_index(plain, steered)) < 1


def test_numbers_carry_no_meaning(seeing_model, draw_photo):
  photo, known = draw_photo(0, 30, 47), random_marks(6)
  names = np.append(np.random.default_rng(0).permutation(9) * 100, -1)
  one = seeing_model.segment(photo, known=known).id_map
  other = seeing_model.segment(photo, known=names[known]).id_map
  assert metrics.adjusted_rand_index(one, other) == 1


def test_strength_leads_from_the_start_to_the_plain_sample(model, draw_photo):
  photo, start = draw_photo(0, 30, 47), regions()
  ari = lambda result: metrics.adjusted_rand_index(start, result.id_map)
  untouched = model.segment(photo, start=start, strength=0)
  assert ari(untouched) == 1
  plain = model.segment(photo)
  free = model.segment(photo, start=start, strength=1)
  np.testing.assert_array_equal(free.id_map, plain.id_map)
  little = model.segment(photo, start=start, strength=0.1)
  assert ari(little) != ari(plain)
  known = random_marks(5)
  both = model.segment(photo, start=start, strength=0, known=known)
  said = known >= 0
  assert metrics.adjusted_rand_index(known[said], both.id_map[said]) == 1


@pytest.mark.parametrize(
  ('given', 'reason'),
  [
    ({'known': np.zeros((5, 5), int)}, r'known .* \[30, 47\]'),
    ({'start': np.zeros((30, 47))}, 'start must be integers'),
    ({'start': regions(), 'strength': 1.5}, 'strength is 1.5'),
    ({'start': regions(), 'strength': float('nan')}, 'strength is nan'),
    ({'known': regions(), 'tile': 40}, 'tile'),
  ],
)
def test_what_does_not_fit_is_refused(model, draw_photo, given, reason):
  with pytest.raises(ValueError, match=reason) as error:
    model.segment(draw_photo(0, 30, 47), **given)
  assert '\n' not in str(error.value)


def test_photos_are_steered_one_by_one(model, draw_photo):
  photos = [draw_photo(i, 30, 47) for i in range(2)]
  known = [random_marks(5), None]
  together = model.segment_batch(photos, 1, known=known)
  alone = model.segment(photos[0], known=known[0])
  np.testing.assert_array_equal(together[0].id_map, alone.id_map)
  with pytest.raises(ValueError, match='1 photos of 2'):
    model.segment_batch(photos, known=known[:1])
  assert quickstart.get_config().diffusion.prompt_rate == 0
