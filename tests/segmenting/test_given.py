"""What is known of photos, read from files."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from bitseg_jax.segmenting import given

SIZE = 20, 30


def read(tmp_path, marks, name='photo'):
  path = tmp_path / 'marks.json'
  path.write_text(json.dumps({'photo': marks}))
  return given.read(given.open_place(path), name, SIZE)


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
  assert read(tmp_path, [], 'another') is None
  np.testing.assert_array_equal(read(tmp_path, [], 'folder/photo'), -1)
  many = [{'id': i, 'points': [[i % 30, i // 30]]} for i in range(600)]
  np.testing.assert_array_equal(
    read(tmp_path, many), np.arange(600).reshape(SIZE)
  )


def test_labels_of_a_folder(tmp_path):
  labels = np.arange(600, dtype=np.uint16).reshape(SIZE)
  Image.fromarray(labels).save(tmp_path / 'a_labels.png')
  place = given.open_place(tmp_path)
  for name in ('a', 'below/a'):
    np.testing.assert_array_equal(
      given.read(place, name, SIZE), labels.astype(int) - 1
    )
  assert given.read(place, 'b', SIZE) is None
  assert given.fingerprint(place, 'b') == ''
  before = given.fingerprint(place, 'a')
  Image.fromarray(labels[::-1].copy()).save(tmp_path / 'a_labels.png')
  assert given.fingerprint(place, 'a') != before
  with pytest.raises(ValueError, match=r'30 x 20 .* 31 x 20'):
    given.read(place, 'a', (20, 31))


@pytest.mark.parametrize(
  ('marks', 'reason'),
  [
    ({}, 'a list of marks'),
    ([7], 'must have an id and one of'),
    ([{'id': 1}], 'must have an id'),
    ([{'points': [[1, 1]]}], 'must have an id'),
    ([{'id': 1, 'points': [[1, 1]], 'box': [0, 0, 1, 1]}], 'must have an id'),
    ([{'id': 1.5, 'points': [[1, 1]]}], 'id is 1.5'),
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
    given.open_place(tmp_path / 'nowhere')
  (tmp_path / 'list.json').write_text('[]')
  with pytest.raises(ValueError, match=r'list.json: must be an object'):
    given.open_place(tmp_path / 'list.json')


@pytest.mark.parametrize('what', ['pipe', 'link', 'folder'])
def test_what_is_there_but_no_file_is_an_error(tmp_path, what):
  path = tmp_path / 'a_labels.png'
  if what == 'pipe':
    os.mkfifo(path)
  elif what == 'link':
    path.symlink_to('nowhere')
  else:
    path.mkdir()
  place = given.open_place(tmp_path)
  for read in (
    lambda: given.read(place, 'a', SIZE),
    lambda: given.fingerprint(place, 'a'),
  ):
    with pytest.raises((ValueError, OSError), match=r'a_labels\.png'):
      read()


def test_what_says_nothing_of_any_photo_is_an_error(tmp_path):
  path = tmp_path / 'marks.json'
  path.write_text('{"a": [], "b": []}')
  assert given.count(given.open_place(path), ['x', 'b', 'below/a']) == 2
  with pytest.raises(ValueError, match=r'marks.json says nothing .* "x"'):
    given.count(given.open_place(path), ['x', 'y'])
  with pytest.raises(ValueError, match=r'says nothing .* x.png'):
    given.count(given.open_place(tmp_path), ['x'])
