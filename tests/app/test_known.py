"""What a user says of photos: read from files, and obeyed."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from bitseg_jax import metrics
from bitseg_jax.app import known as user
from bitseg_jax.app.segmenter import Segmenter

SIZE = 20, 30


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


def read(tmp_path, marks, name='photo'):
  path = tmp_path / 'marks.json'
  path.write_text(json.dumps({'photo': marks}))
  return user.read(user.open_place(path, [name]), name, SIZE)


def test_marks_are_drawn(tmp_path):
  ids = read(
    tmp_path,
    [
      {'id': 5, 'points': [[29, 19], [0, 0]]},
      {'id': 7, 'polygon': [[5, 5], [15, 5], [15, 10], [5, 10]]},
      {'id': 5, 'box': [18, 4, 26, 12]},
    ],
  )
  assert ids.dtype == np.int32
  assert ids[19, 29] == ids[0, 0] == 5
  np.testing.assert_array_equal(ids[5:11, 5:16], 7)
  np.testing.assert_array_equal(ids[6:11, 20:25], 5)
  assert (ids >= 0).sum() == 2 + 6 * 11 + 5 * 5
  one = [{'id': 3, 'points': [[1, 2]]}]
  assert read(tmp_path, one, 'folder/photo')[2, 1] == 3
  (tmp_path / 'marks.json').write_text(json.dumps({'photo.jpg': one}))
  assert user.open_place(tmp_path / 'marks.json', ['photo']).of['photo'] == one
  many = [{'id': i, 'points': [[i % 30, i // 30]]} for i in range(600)]
  np.testing.assert_array_equal(
    read(tmp_path, many), np.arange(600).reshape(SIZE)
  )


def test_thousands_of_marks_are_read_at_once(tmp_path):
  """Small ones of a large photo, and all of one kind in one mark."""
  rng, size = np.random.default_rng(0), (3000, 4000)
  places = rng.permutation(size[0] * size[1])[:10_000]
  rows, columns = np.divmod(places, size[1])
  points = np.stack([columns, rows], axis=1).tolist()
  ids = rng.integers(0, 50, len(points)).tolist()
  expected = np.full(size, -1)
  expected[rows, columns] = ids
  each = [{'id': k, 'points': [p]} for k, p in zip(ids, points, strict=True)]
  together = [
    {'id': k, 'points': [p for n, p in zip(ids, points, strict=True) if n == k]}
    for k in range(50)
  ]
  boxes = [
    {'id': 1, 'box': [x, y, min(x + 9, 3999), min(y + 9, 2999)]}
    for x, y in points
  ]
  for marks in (each, together, boxes):
    path = tmp_path / 'marks.json'
    path.write_text(json.dumps({'photo': marks}))
    began = time.process_time()
    ids_of = user.read(user.open_place(path, ['photo']), 'photo', size)
    assert time.process_time() - began < 2
    if marks is not boxes:
      np.testing.assert_array_equal(ids_of, expected)


def test_the_order_of_marks_and_points_does_not_matter(tmp_path):
  rng = np.random.default_rng(0)
  points = [[x, y] for x in range(0, 30, 3) for y in range(0, 20, 4)]
  marks = [
    {'id': 7, 'points': points[:20]},
    {'id': 4, 'points': points[20:40]},
    {'id': 7, 'box': [1, 1, 5, 2]},
    {'id': 9, 'points': points[40:]},
  ]
  expected = read(tmp_path, marks)
  for _ in range(3):
    mixed = [marks[k] for k in rng.permutation(len(marks))]
    mixed = [
      {**mark, 'points': rng.permutation(mark['points']).tolist()}
      if 'points' in mark
      else mark
      for mark in mixed
    ]
    np.testing.assert_array_equal(read(tmp_path, mixed), expected)


def test_labels_of_a_folder(tmp_path):
  labels = np.arange(600, dtype=np.uint16).reshape(SIZE)
  Image.fromarray(labels).save(tmp_path / 'a_labels.png')
  for name in ('a', 'below/a'):
    np.testing.assert_array_equal(
      user.read(user.open_place(tmp_path, [name]), name, SIZE),
      labels.astype(int) - 1,
    )
  place = user.open_place(tmp_path, ['a', 'b'])
  assert user.read(place, 'b', SIZE) is None
  assert user.fingerprint(place, 'b') == ''
  before = user.fingerprint(place, 'a')
  Image.fromarray(labels[::-1].copy()).save(tmp_path / 'a_labels.png')
  assert user.fingerprint(place, 'a') != before
  with pytest.raises(ValueError, match=r'30 x 20 .* 31 x 20'):
    user.read(place, 'a', (20, 31))


@pytest.mark.parametrize(
  ('marks', 'reason'),
  [
    ({}, 'must hold marks'),
    (7, 'a list of marks'),
    ([7], 'must have an id and one of'),
    ([{'id': 1}], 'must have an id'),
    ([{'points': [[1, 1]]}], 'must have an id'),
    ([{'id': 1, 'points': [[1, 1]], 'box': [0, 0, 1, 1]}], 'must have an id'),
    ([{'id': 1.5, 'points': [[1, 1]]}], 'id is 1.5'),
    ([{'id': '1', 'points': [[1, 1]]}], "id is '1'"),
    ([{'id': None, 'points': [[1, 1]]}], 'id is None'),
    ([{'id': True, 'points': [[1, 1]]}], 'id is True'),
    ([{'id': -1, 'points': [[1, 1]]}], 'id is -1'),
    ([{'id': 10**30, 'points': [[1, 1]]}], 'id is 1000'),
    ([{'id': 1, 'points': []}], 'within the photo'),
    ([{'id': 1, 'points': [[1]]}], 'within the photo'),
    ([{'id': 1, 'points': [['a', 'b']]}], 'within the photo'),
    ([{'id': 1, 'points': [['1', '2']]}], 'within the photo'),
    ([{'id': 1, 'points': [[2**70, 2]]}], 'within the photo'),
    ([{'id': 1, 'points': [[True, False]]}], 'within the photo'),
    ([{'id': 1, 'points': [[30, 0]]}], 'within the photo, 30 x 20'),
    ([{'id': 1, 'points': [[0, -1]]}], 'within the photo'),
    ([{'id': 1, 'points': [[float('nan'), 1]]}], 'marks.json'),
    ([{'id': 1, 'box': [9, 9, 3, 3]}], 'left, top, right, bottom'),
    ([{'id': 1, 'box': [1, 2, 3]}], 'within the photo'),
    (
      [{'id': 1, 'points': [[3, 3]]}, {'id': 2, 'points': [[3, 3]]}],
      'mark 1: says 2 of a pixel that is said to be 1',
    ),
  ],
)
def test_bad_marks_are_one_line(tmp_path, marks, reason):
  with pytest.raises(ValueError, match=reason) as error:
    read(tmp_path, marks)
  assert '\n' not in str(error.value)


def test_a_place_must_be_there(tmp_path):
  with pytest.raises(ValueError, match='nowhere'):
    user.open_place(tmp_path / 'nowhere', ['a'])
  (tmp_path / 'list.json').write_text('[]')
  with pytest.raises(ValueError, match=r'list.json: must hold marks'):
    user.open_place(tmp_path / 'list.json', ['a'])


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    ('', 'marks.json'),
    ('{}', 'marks.json: must hold marks'),
    ('{"photo": []}', 'marks.json: must hold marks'),
  ],
)
def test_a_file_that_marks_nothing_is_refused(tmp_path, text, reason):
  path = tmp_path / 'marks.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=reason) as error:
    user.open_place(path, ['photo'])
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('what', ['pipe', 'link', 'folder'])
def test_what_is_there_but_no_file_is_an_error(tmp_path, what):
  path = tmp_path / 'a_labels.png'
  if what == 'pipe':
    os.mkfifo(path)
  elif what == 'link':
    path.symlink_to('nowhere')
  else:
    path.mkdir()
  place = user.open_place(tmp_path, ['a'])
  for read in (
    lambda: user.read(place, 'a', SIZE),
    lambda: user.fingerprint(place, 'a'),
  ):
    with pytest.raises((ValueError, OSError), match=r'a_labels\.png'):
      read()


def test_what_says_nothing_of_any_photo_is_an_error(tmp_path):
  path = tmp_path / 'marks.json'
  path.write_text('{"a": [], "b": [{"id": 0, "points": [[1, 1]]}]}')
  assert user.open_place(path, ['x', 'b', 'below/a']).of.keys() == {
    *('b', 'below/a')
  }
  with pytest.raises(ValueError, match='a may be of a and of below/a'):
    user.open_place(path, ['a', 'below/a'])
  with pytest.raises(ValueError, match=r'marks.json says nothing .* "x"'):
    user.open_place(path, ['x', 'y'])
  with pytest.raises(ValueError, match=r'says nothing .* x.png'):
    user.open_place(tmp_path, ['x'])


def regions(shape=(30, 47)):
  rows, columns = np.indices(shape)
  return (rows * 3 // shape[0] * 3 + columns * 3 // shape[1]).astype(np.int32)


def random_marks(count, seed=0):
  known = np.full((30, 47), -1, np.int32)
  rng = np.random.default_rng(seed)
  known.ravel()[rng.permutation(known.size)[:count]] = rng.integers(0, 9, count)
  return known


def test_what_is_said_may_be_one_array():
  known = np.full((2, 8, 8), -1)
  nothing = [None, None]
  assert user.check([(8, 8)] * 2, known, None) == (nothing, nothing)
  known[1, 2, 3] = 0
  (first, second), start = user.check([(8, 8)] * 2, known, None)
  assert first is None and second.max() == 0 and start == nothing


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
    known = user.read(user.open_place(path, ['photo']), 'photo', (30, 47))
    results.append(model.segment(photo, 2, known=known))
  one, other = results
  np.testing.assert_array_equal(one.id_map, other.id_map)
  np.testing.assert_array_equal(one.samples, other.samples)
  np.testing.assert_array_equal(one.confidence, other.confidence)


def test_strength_leads_from_the_start_to_the_plain_sample(model, draw_photo):
  photo, start = draw_photo(0, 30, 47), regions()
  ari = lambda result: metrics.adjusted_rand_index(start, result.id_map)
  plain = model.segment(photo)
  free = model.segment(photo, start=start, strength=1)
  np.testing.assert_array_equal(free.id_map, plain.id_map)
  little = model.segment(photo, start=start, strength=0.1)
  assert ari(little) != ari(plain)
  known = random_marks(5)
  both = model.segment(photo, start=start, strength=0.1, known=known)
  said = known >= 0
  assert metrics.adjusted_rand_index(known[said], both.id_map[said]) == 1


@pytest.mark.parametrize(
  ('given', 'reason'),
  [
    ({'known': np.zeros((5, 5), int)}, r'known .* \[30, 47\]'),
    ({'start': np.zeros((30, 47))}, 'start must be integers'),
    ({'start': regions(), 'strength': 0.0}, 'strength is 0'),
    ({'start': regions(), 'strength': 1.5}, 'strength is 1.5'),
    ({'start': regions(), 'strength': float('nan')}, 'strength is nan'),
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


@pytest.mark.parametrize(
  ('ids', 'reason'),
  [
    (np.zeros((4, 5)), 'integers'),
    (np.zeros((5, 4), int), r'\[4, 5\]'),
    (np.zeros((4, 5, 1), int), r'\[4, 5\]'),
    (np.full((4, 5), -2), '-2'),
    (np.array([]), 'integers'),
  ],
)
def test_what_is_no_id_map_is_refused(ids, reason):
  with pytest.raises(ValueError, match=reason) as error:
    user.check([(4, 5)], [ids], None)
  assert '\n' not in str(error.value)


def test_ids_are_renumbered_without_gaps():
  given = np.array([[-1, 7, 2**40], [7, -1, 0]])
  (known,), _ = user.check([(2, 3)], [given], None)
  np.testing.assert_array_equal(known, [[-1, 0, 1], [0, -1, 2]])
