"""What is known of photos, read from files."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from bitseg_jax.app import known_files

SIZE = 20, 30


def read(tmp_path, marks, name='photo'):
  path = tmp_path / 'marks.json'
  path.write_text(json.dumps({'photo': marks}))
  return known_files.read(known_files.open_place(path), name, SIZE)


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
  assert read(tmp_path, one, 'another') is None
  assert read(tmp_path, one, 'folder/photo')[2, 1] == 3
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
    ids_of = known_files.read(known_files.open_place(path), 'photo', size)
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
  place = known_files.open_place(tmp_path)
  for name in ('a', 'below/a'):
    np.testing.assert_array_equal(
      known_files.read(place, name, SIZE), labels.astype(int) - 1
    )
  assert known_files.read(place, 'b', SIZE) is None
  assert known_files.fingerprint(place, 'b') == ''
  before = known_files.fingerprint(place, 'a')
  Image.fromarray(labels[::-1].copy()).save(tmp_path / 'a_labels.png')
  assert known_files.fingerprint(place, 'a') != before
  with pytest.raises(ValueError, match=r'30 x 20 .* 31 x 20'):
    known_files.read(place, 'a', (20, 31))


@pytest.mark.parametrize(
  ('marks', 'reason'),
  [
    ({}, 'a list of marks'),
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
    known_files.open_place(tmp_path / 'nowhere')
  (tmp_path / 'list.json').write_text('[]')
  with pytest.raises(ValueError, match=r'list.json: must be an object'):
    known_files.open_place(tmp_path / 'list.json')


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    ('', 'marks.json'),
    ('{}', 'marks.json: holds no marks'),
    ('{"photo": []}', 'marks.json: holds no marks'),
  ],
)
def test_a_file_that_marks_nothing_is_refused(tmp_path, text, reason):
  path = tmp_path / 'marks.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=reason) as error:
    known_files.open_place(path)
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
  place = known_files.open_place(tmp_path)
  for read in (
    lambda: known_files.read(place, 'a', SIZE),
    lambda: known_files.fingerprint(place, 'a'),
  ):
    with pytest.raises((ValueError, OSError), match=r'a_labels\.png'):
      read()


def test_what_says_nothing_of_any_photo_is_an_error(tmp_path):
  path = tmp_path / 'marks.json'
  path.write_text('{"a": [], "b": [{"id": 0, "points": [[1, 1]]}]}')
  assert (
    known_files.count(known_files.open_place(path), ['x', 'b', 'below/a']) == 2
  )
  with pytest.raises(ValueError, match='a may be of a and of below/a'):
    known_files.count(known_files.open_place(path), ['a', 'below/a'])
  with pytest.raises(ValueError, match=r'marks.json says nothing .* "x"'):
    known_files.count(known_files.open_place(path), ['x', 'y'])
  with pytest.raises(ValueError, match=r'says nothing .* x.png'):
    known_files.count(known_files.open_place(tmp_path), ['x'])
