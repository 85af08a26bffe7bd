"""Outside data: whatever it is, it is read right or refused in one line."""

import json
import os

import numpy as np
import pytest
import scipy.io
from PIL import Image

from bitseg_jax.data import source
from bitseg_jax.data.families import bsds500, coco_panoptic, folder

IDS = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((8, 8))).astype(np.uint8)


def save(path, pixels=IDS, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path, **options)


def refused(function, path):
  with pytest.raises(source.SourceError) as error:
    function(path)
  text = str(error.value)
  assert '\n' not in text and str(path) in text
  return text


@pytest.mark.parametrize(
  'read', [source.read_photo, source.read_label, source.load_json]
)
def test_what_is_no_plain_file_is_never_waited_for(tmp_path, read):
  os.mkfifo(tmp_path / 'pipe')
  assert 'not a plain file' in refused(read, tmp_path / 'pipe')
  assert 'a folder' in refused(read, tmp_path)
  (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
  assert 'leads nowhere' in refused(read, tmp_path / 'loop')
  assert 'no such file' in refused(read, tmp_path / 'none')
  (tmp_path / 'empty').touch()
  assert 'empty file' in refused(read, tmp_path / 'empty')


def test_a_picture_that_does_not_keep_ids_holds_none(tmp_path):
  for kind in ('JPEG', 'WEBP'):
    save(tmp_path / 'a.png', format=kind)
    assert f'is {kind}, which does not keep' in refused(
      source.read_label, tmp_path / 'a.png'
    )
  for kind in ('PNG', 'TIFF', 'BMP', 'GIF'):
    save(tmp_path / 'a', format=kind)
    found = source.read_label(tmp_path / 'a')
    assert len(np.unique(found)) == 4  # GIF numbers them anew


@pytest.mark.parametrize(
  'values',
  [[[2**40, 1]], [[np.nan, 1]], [[np.inf, 1]], [[1.7, 1]], [[-2, 1]], [1, 2]],
)
def test_ids_are_whole_numbers_in_range(values):
  with pytest.raises(source.SourceError, match='here: '):
    source.to_ids(np.array(values), 'here')
  np.testing.assert_array_equal(source.to_ids([[2.0, 0]], ''), [[2, 0]])


@pytest.mark.parametrize('bad', [2**40, np.nan, 1.7])
def test_a_mat_file_with_other_numbers_is_refused(tmp_path, bad):
  path = tmp_path / 'a.mat'
  cells = np.empty((1, 1), object)
  cells[0, 0] = {'Segmentation': np.array([[1.0, bad]])}
  scipy.io.savemat(path, {'groundTruth': cells})
  item = source.Item('a', path, (path,))
  with pytest.raises(source.SourceError, match=r'a\.mat: .*annotation 1'):
    bsds500.load_id_maps(item)


@pytest.mark.parametrize(
  'text', ['[' * 100_000, '{"a": ', '\udcff', '"a"', '[1]', '{"a": [1]}']
)
def test_json_of_any_shape_is_refused(tmp_path, text):
  path = tmp_path / 'a.json'
  path.write_bytes(text.encode(errors='surrogateescape'))
  refused(lambda path: source.read_json(path, ['a']), path)


def test_lists_may_begin_with_a_mark_but_must_be_text(tmp_path):
  path = tmp_path / 'train.txt'
  path.write_bytes(b'\xef\xbb\xbfa\r\n\r\n b \n')
  assert source.read_lines(path) == ['a', 'b']
  path.write_bytes(b'')
  assert source.read_lines(path) == []
  path.write_bytes(b'\xff\xfe')
  assert 'UTF-8' in refused(source.read_lines, path)


def make_folder(root, *annotators):
  for name in ('a', 'b'):
    save(root / f'images/{name}.png', np.zeros((16, 16, 3), np.uint8))
    for annotator in annotators:
      save(root / f'labels/{annotator}/{name}.png')


def test_what_programs_left_beside_labels_is_no_annotator(tmp_path):
  make_folder(tmp_path, 'one', '.ipynb_checkpoints', '__MACOSX')
  save(tmp_path / 'labels/one/._a.png')
  opened = folder.open_source(tmp_path)
  items = [item for items in opened.splits.values() for item in items]
  assert [len(item.labels) for item in items] == [1, 1]


def test_what_is_missing_is_told(tmp_path):
  make_folder(tmp_path, 'one', 'two')
  (tmp_path / 'labels/two/b.png').unlink()
  save(tmp_path / 'images/more/c.png')
  (tmp_path / 'train.txt').write_text('a\nb\n')
  notes = ' | '.join(folder.open_source(tmp_path).notes)
  assert 'labels/two has labels of 1 of the 2 photos' in notes
  assert 'has folders (more), whose photos are not read' in notes
  assert 'no val.txt and no test.txt, so no such split' in notes


def test_nothing_outside_the_source_is_opened(tmp_path):
  save(tmp_path / 'secret.png')
  root = tmp_path / 'data'
  for photo, png in (('../secret.png', 'a.png'), ('a.png', '../../secret.png')):
    save(root / 'panoptic_val/a.png')
    save(root / 'val/a.png', np.zeros((16, 16, 3), np.uint8))
    content = {
      'images': [{'id': 1, 'file_name': photo}],
      'annotations': [
        {'image_id': 1, 'file_name': png, 'segments_info': [{'id': 1}]}
      ],
    }
    (root / 'panoptic_val.json').write_text(json.dumps(content))
    opened = coco_panoptic.open_source(root)
    assert not opened.splits
    (problem,) = opened.problems
    assert 'outside of' in problem or 'no photo' in problem


@pytest.mark.parametrize(
  ('name', 'split'),
  [
    ('panoptic_train2017', 'train'),
    ('my-val', 'val'),
    ('latest', None),
    ('trainval', None),
    ('Test', 'test'),
  ],
)
def test_a_split_is_a_word_of_the_name(tmp_path, name, split):
  save(tmp_path / name / 'a.png')
  save(tmp_path / 'images/a.png', np.zeros((16, 16, 3), np.uint8))
  content = {
    'images': [{'id': 1, 'file_name': 'a.png'}],
    'annotations': [
      {'image_id': 1, 'file_name': 'a.png', 'segments_info': [{'id': 1}]}
    ],
  }
  (tmp_path / f'{name}.json').write_text(json.dumps(content))
  opened = coco_panoptic.open_source(tmp_path)
  assert ('at random' in ' '.join(opened.notes)) == (split is None)
  if split:
    assert list(opened.splits) == [split]
