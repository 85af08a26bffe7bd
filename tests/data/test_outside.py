"""Files that others made are read, or named in one line; nothing is assumed."""

import os
import shutil
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from bitseg_jax import cli
from bitseg_jax.data import outside, rle
from bitseg_jax.data.families import folder as own
from bitseg_jax.data.families import open_source
from bitseg_jax.data.prepared import write

IDS = np.arange(12).reshape(3, 4)


def header(shape, dtype='<i8'):
  """A .npy file that claims a shape and holds 96 bytes."""
  text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n"
  return (
    b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text.encode()
  ) + bytes(96)


@pytest.mark.parametrize('order', ['C', 'F'])
def test_arrays_are_read_as_numpy_writes_them(tmp_path, order):
  np.save(tmp_path / 'a.npy', np.asarray(IDS, order=order))
  found = outside.read_array(tmp_path / 'a.npy')
  np.testing.assert_array_equal(found, IDS)


@pytest.mark.parametrize(
  'content',
  [
    header('(1000000, 1000000)'),
    header('(-3, -4)'),
    header('(3, 4)', '|O'),
    header('(3, 5)'),
    header('(' * 90 + '3' + ')' * 90),
    b'PK\x03\x04',
    b'',
  ],
)
def test_arrays_that_lie_take_no_memory(tmp_path, content):
  (tmp_path / 'a.npy').write_bytes(content)
  tracemalloc.start()
  with pytest.raises(outside.SourceError, match=r'a\.npy: not a whole \.npy'):
    outside.read_array(tmp_path / 'a.npy')
  assert tracemalloc.get_traced_memory()[1] < 2**20
  tracemalloc.stop()


@pytest.mark.parametrize(
  'content',
  [b'[1, NaN]', b'[-Infinity]', b'[' * 10**5, b'9' * 5000, b'\xff\xfe\x00'],
)
def test_what_is_no_json_is_refused(tmp_path, content):
  (tmp_path / 'a.json').write_bytes(content)
  with pytest.raises(outside.SourceError, match=r'a\.json: not whole JSON'):
    outside.read_json(tmp_path / 'a.json')


def test_objects_are_objects(tmp_path):
  for entry in ('null', '[]', '3', '"' + 'x' * 9999 + '"'):
    (tmp_path / 'a.json').write_text(f'{{"images": [{{}}, {entry}]}}')
    with pytest.raises(outside.SourceError, match=r'images\[1\] is') as error:
      outside.read_lists(tmp_path / 'a.json', 'images')
    assert len(str(error.value)) < 300


def test_only_plain_files_are_read(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  for path in (tmp_path / 'pipe', tmp_path, tmp_path / 'none', '/dev/zero'):
    with pytest.raises(outside.SourceError):
      outside.read_bytes(path)


@pytest.mark.parametrize(
  'values',
  [
    IDS + 2.0**40,
    IDS + 1.7,
    np.where(IDS == 3, np.nan, IDS),
    np.where(IDS == 3, np.inf, IDS),
    IDS - 1,
    np.uint64(2**63) + IDS.astype(np.uint64),
    IDS[0],
    IDS > 3,
    IDS.astype(str),
  ],
)
def test_ids_are_whole_and_in_range(values):
  with pytest.raises(outside.SourceError, match='here: '):
    outside.check_ids(values, 'here')
  outside.check_ids(IDS.astype(float), 'here')


def test_run_lengths_whose_sum_overflows_are_refused():
  for counts in ([2**63, 2**63, 12], [2**62] * 4 + [12], [2**70, 12]):
    with pytest.raises(ValueError, match='run lengths'):
      rle.decode({'size': [3, 4], 'counts': counts}, 3, 4)
  with pytest.raises(ValueError, match='run lengths'):
    rle.decode({'size': 3, 'counts': [12]}, 3, 4)


@pytest.fixture
def source(tmp_path):
  for name in 'abcd':
    for place in ('images', 'labels/anna', 'labels/bob'):
      (tmp_path / 'in' / place).mkdir(parents=True, exist_ok=True)
      pixels = np.full((8, 8), 1 + ord(name) % 2, np.uint8)
      Image.fromarray(pixels).save(tmp_path / 'in' / place / f'{name}.png')
  return tmp_path / 'in'


def test_what_is_left_out_is_said(source):
  for hidden in ('.ipynb_checkpoints', '__MACOSX'):  # are no annotators
    shutil.copytree(source / 'labels/anna', source / 'labels' / hidden)
  (source / 'labels/bob/c.png').unlink()
  (source / 'images/more').mkdir()
  Image.new('RGB', (8, 8)).save(source / 'images/more/z.png')
  (source / 'train.txt').write_text('\ufeffa\nb\nc\nd\n', 'utf-8')
  found = open_source('folder', source)
  labels = [len(item.labels) for item in found.splits['train']]
  assert labels == [2, 2, 1, 2]  # the byte order mark is no name
  said = '\n'.join(found.notes)
  assert 'nothing for val and test' in said
  (problem,) = found.problems
  assert 'images/more: 1 photos in a sub-folder' in problem


def test_lists_that_cannot_be_read_are_named(source):
  os.mkfifo(source / 'train.txt')
  with pytest.raises(outside.SourceError, match='not a plain file'):
    open_source('folder', source)


def test_names_that_are_no_text_are_left_out(source):
  for place in ('images', 'labels/anna'):
    folder = os.fsencode(source / place)
    os.rename(folder + b'/a.png', folder + b'/\xff.png')
  (line,) = [p for p in open_source('folder', source).problems if 'rename' in p]
  assert '\\udcff.png' in line
  assert write._fingerprint(own.open_source(source), {})


def test_errors_stand_on_a_line_of_their_own(capsys):
  def fail():
    for _ in tqdm(range(3), file=sys.stderr):
      raise ValueError('the reason')

  assert cli.call(fail) == 1
  assert capsys.readouterr().err.endswith('\nerror: the reason\n')
