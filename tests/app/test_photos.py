"""Which files are photos, what their results are called, how they are read."""

import os
import struct
import zlib

import pytest
from PIL import Image

from bitseg_jax.app import photos
from bitseg_jax.data.images import read_photo
from bitseg_jax.data.outside import SourceError


def make_tree(folder):
  for name in (
    'a[1].png',
    'b.JPG',
    '.hidden.png',
    'notes.md',
    'deep/b.jpg',
    'deep/deeper/c.tif',
    '.git/d.png',
  ):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


@pytest.mark.parametrize(
  ('inputs', 'expected'),
  [
    ([''], ['a[1]', 'b', 'deep/b', 'deep/deeper/c']),
    (['deep'], ['b', 'deeper/c']),
    (['a[1].png'], ['a[1]']),
    (['[ab]*'], ['a[1]', 'b']),
    (['**/*.jpg'], ['deep/b']),
    (['*/*.jpg'], ['deep/b']),
    (['deep', 'deep/b.jpg', '*/b.jpg'], ['b', 'deeper/c']),  # once each
    (['b.JPG', 'deep/b.jpg'], ['b.JPG', 'b.jpg~2']),
    (['notes.md'], ['notes']),
  ],
)
def test_names_keep_folders_and_are_unique(tmp_path, inputs, expected):
  make_tree(tmp_path / 'in')
  inputs = [str(tmp_path / 'in' / one) for one in inputs]
  found = photos.find(inputs, tmp_path / 'out')
  assert [photo.name for photo in found] == expected
  assert all(photo.path.is_file() for photo in found)


def test_the_suffix_tells_apart_what_would_clash(tmp_path):
  for name in ('x.png', 'x.jpg', 'y.jpg'):
    (tmp_path / name).touch()
  found = photos.find([str(tmp_path)], tmp_path / 'out')
  assert [photo.name for photo in found] == ['x.jpg', 'x.png', 'y']


def test_long_names_leave_room_for_endings(tmp_path):
  for letter in 'ab':
    (tmp_path / f'{"ü" * 120}{letter}.png').touch()
  names = [p.name for p in photos.find([str(tmp_path)], tmp_path / 'out')]
  assert len(set(names)) == 2
  assert all(len(name.encode()) <= 210 for name in names)


def test_results_are_not_taken_for_photos(tmp_path):
  (tmp_path / 'out').mkdir()
  for name in ('a.jpg', 'out/a_overlay.png'):
    (tmp_path / name).touch()
  found = photos.find([str(tmp_path)], tmp_path / 'out')
  assert [photo.name for photo in found] == ['a']
  with pytest.raises(ValueError, match='lies in the output directory'):
    photos.find([str(tmp_path / 'a.jpg')], tmp_path)


@pytest.mark.parametrize('one', ['empty', '*.jpg', 'nowhere.jpg'])
def test_what_names_nothing_is_refused(tmp_path, one):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='no photo there'):
    photos.find([str(tmp_path / one)], tmp_path / 'out')


def test_odd_files_are_refused_in_one_line(tmp_path):
  Image.new('RGB', (90, 90)).save(tmp_path / 'whole.jpg', quality=100)
  whole = (tmp_path / 'whole.jpg').read_bytes()
  (tmp_path / 'whole.jpg').unlink()
  (tmp_path / 'truncated.jpg').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'empty.jpg').touch()
  (tmp_path / 'text.jpg').write_text('Dear photo')
  # A PNG that says it is 30000 x 30000.
  Image.new('L', (4, 4)).save(tmp_path / 'bomb.png')
  bomb = bytearray((tmp_path / 'bomb.png').read_bytes())
  bomb[16:24] = struct.pack('>II', 30000, 30000)
  bomb[29:33] = struct.pack('>I', zlib.crc32(bomb[12:29]))
  (tmp_path / 'bomb.png').write_bytes(bomb)
  os.mkfifo(tmp_path / 'pipe.jpg')
  (tmp_path / 'loop.jpg').symlink_to(tmp_path / 'loop.jpg')
  (tmp_path / 'folder.jpg').mkdir()
  found = photos.find([str(tmp_path)], tmp_path / 'out')
  reasons = {'folder': None}
  for path in [photo.path for photo in found] + [tmp_path / 'folder.jpg']:
    with pytest.raises(SourceError) as error:
      read_photo(path)
    reasons[path.stem] = str(error.value)
    assert str(path) in reasons[path.stem]
    assert '\n' not in reasons[path.stem]
  for name, reason in {
    'truncated': 'unreadable',
    'empty': 'empty file',
    'text': 'not an image',
    'bomb': 'exceeds limit',
    'pipe': 'not a plain file',
    'loop': 'Too many levels',
    'folder': 'not a plain file',
  }.items():
    assert reason in reasons.pop(name)
  assert not reasons


def test_no_photo_is_called_as_a_file_of_the_whole_collection(tmp_path):
  for name in ('summary.jpg', 'rle.png', 'panoptic/a.jpg', 'summary_2.jpg'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
  names = [p.name for p in photos.find([str(tmp_path)], tmp_path / 'out')]
  assert sorted(names) == ['panoptic/a~2', 'rle~2', 'summary_2', 'summary~2']


def test_an_empty_input_is_no_folder(tmp_path):
  with pytest.raises(ValueError, match='--input is empty'):
    photos.find([''], tmp_path)


def test_a_list_may_hold_names_that_are_no_text(tmp_path):
  names = ['ünï.png', 'no text \udcff.png']
  for name in names:
    (tmp_path / name).touch()
  (tmp_path / 'all.txt').write_bytes(os.fsencode('\n'.join(names)))
  found = photos.find([str(tmp_path / 'all.txt')], tmp_path / 'out')
  assert [photo.path.name for photo in found] == names


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_lists_and_names_written_on_other_systems(tmp_path, encoding):
  make_tree(tmp_path)
  (tmp_path / 'ünï.jpg').touch()
  lines = ['deep\\b.jpg', '', 'ünï.jpg', 'deep\\deeper', '  a[1].png ']
  path = tmp_path / 'photos.txt'
  path.write_bytes('\r\n'.join(lines).encode(encoding))
  names = [p.name for p in photos.find([str(path)], tmp_path / 'out')]
  assert names == ['deep/b', 'ünï', 'deep/deeper/c', 'a[1]']
  written = f'{tmp_path}\\deep\\*.jpg'
  (found,) = photos.find([written], tmp_path / 'out')
  assert found.path == tmp_path / 'deep/b.jpg'
  path.write_text('nowhere.jpg')
  with pytest.raises(ValueError, match=r'photos.txt: nowhere.jpg: no photo'):
    photos.find([str(path)], tmp_path / 'out')


def test_folders_are_found_through_links_and_cycles_end(tmp_path):
  make_tree(tmp_path / 'there')
  folder = tmp_path / 'in'
  folder.mkdir()
  (folder / 'linked').symlink_to(tmp_path / 'there/deep')
  (tmp_path / 'there/deep/cycle').symlink_to(folder)
  names = [p.name for p in photos.find([str(folder)], tmp_path / 'out')]
  assert names == ['linked/b', 'linked/deeper/c']


def test_names_never_lead_out_of_the_output(tmp_path):
  make_tree(tmp_path / 'in')
  (tmp_path / 'lists').mkdir()
  one = tmp_path / 'lists/one.txt'
  one.write_text('../in/b.JPG\n../in/deep\none.txt\n')  # as by `ls > one.txt`
  names = [p.name for p in photos.find([str(one)], tmp_path / 'out')]
  assert names == ['b.JPG', 'b.jpg~2', 'deeper/c']
  pattern = f'{tmp_path}/in/*/../deep/b.jpg'
  found = photos.find([pattern], tmp_path / 'out')
  assert [photo.name for photo in found] == ['deep/b']
  pattern = f'{tmp_path}/in/*/../../in/b.JPG'
  found = photos.find([pattern], tmp_path / 'out')
  assert [photo.name for photo in found] == ['b']
