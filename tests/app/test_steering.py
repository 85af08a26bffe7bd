"""Segmenting photos of which something is known, or from a first guess."""

import json

import numpy as np
import pytest

from bitseg_jax import metrics
from bitseg_jax.app import known_files, steering
from bitseg_jax.app.segmenter import Segmenter


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


def regions(shape=(30, 47)):
  rows, columns = np.indices(shape)
  return (rows * 3 // shape[0] * 3 + columns * 3 // shape[1]).astype(np.int32)


def random_marks(count, seed=0):
  known = np.full((30, 47), -1, np.int32)
  rng = np.random.default_rng(seed)
  known.ravel()[rng.permutation(known.size)[:count]] = rng.integers(0, 9, count)
  return known


def test_what_is_said_may_be_one_array():
  images = np.zeros((2, 8, 8, 3), np.uint8)
  known = np.full((2, 8, 8), -1)
  assert steering.check(images, known, None, 0.5, None) is None
  known[1, 2, 3] = 0
  first, second = steering.check(images, known, None, 0.5, None)
  assert first.known.max() < 0 <= second.known.max()


def test_any_known_pixels_are_obeyed(model, draw_photo):
  photo = draw_photo(0, 30, 47)
  for count in (1, 5, 300):
    known = random_marks(count, count)
    said = known >= 0
    result = model.segment(photo, 2, known=known)
    for id_map in (result.id_map, *result.samples):
      ari = metrics.adjusted_rand_index(known[said], id_map[said])
      assert ari == 1
    assert result.confidence.shape == (result.id_map.max() + 1,)
  everything = model.segment(photo, 2, known=regions())
  assert metrics.adjusted_rand_index(regions(), everything.id_map) == 1


def test_nothing_known_is_the_plain_sampler(model, draw_photo):
  photo = draw_photo(0, 30, 47)
  plain = model.segment(photo, 2)
  nothing = np.full((30, 47), -1)
  for said in ({'known': nothing}, {'start': nothing}):
    same = model.segment(photo, 2, **said)
    np.testing.assert_array_equal(same.id_map, plain.id_map)
    np.testing.assert_array_equal(same.samples, plain.samples)


def test_numbers_carry_no_meaning(model, draw_photo):
  photo, known = draw_photo(0, 30, 47), random_marks(6)
  names = np.append(np.random.default_rng(0).permutation(9) * 100, -1)
  one = model.segment(photo, known=known).id_map
  other = model.segment(photo, known=names[known]).id_map
  assert metrics.adjusted_rand_index(one, other) == 1


def test_the_order_of_prompts_does_not_matter(model, draw_photo, tmp_path):
  photo, rng = draw_photo(0, 30, 47), np.random.default_rng(3)
  points = rng.permutation([[x, y] for x in range(47) for y in range(30)])
  marks = [
    {'id': int(k), 'points': points[6 * n : 6 * n + 6].tolist()}
    for n, k in enumerate([5, 2, 9, 2])
  ]
  mixed = [
    {'id': m['id'], 'points': m['points'][::-1]} for m in reversed(marks)
  ]
  results = []
  for name, given_marks in (('one', marks), ('other', mixed)):
    path = tmp_path / f'{name}.json'
    path.write_text(json.dumps({'photo': given_marks}))
    known = known_files.read(known_files.open_place(path), 'photo', (30, 47))
    results.append(model.segment(photo, 2, known=known))
  one, other = results
  np.testing.assert_array_equal(one.id_map, other.id_map)
  np.testing.assert_array_equal(one.samples, other.samples)
  np.testing.assert_array_equal(one.confidence, other.confidence)


def test_strength_leads_from_the_start_to_the_plain_sample(model, draw_photo):
  photo, start = draw_photo(0, 30, 47), regions()
  ari = lambda result: metrics.adjusted_rand_index(start, result.id_map)
  untouched = model.segment(photo, start=start, strength=0)
  assert ari(untouched) == 1
  several = model.segment(photo, 3, start=start, strength=0)
  assert several.samples.shape == (3, 30, 47)
  for sample in several.samples:
    assert metrics.adjusted_rand_index(start, sample) == 1
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
  together = model.segment_batch(photos, known=known)
  alone = model.segment(photos[0], known=known[0])
  np.testing.assert_array_equal(together[0].id_map, alone.id_map)
  with pytest.raises(ValueError, match='1 photos of 2'):
    model.segment_batch(photos, known=known[:1])
