"""A prepared dataset holds what its source holds, or says what it does not."""

import os
import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grain
import numpy as np
import pytest
import scipy.io
from PIL import Image

from bitseg_jax import prepare
from bitseg_jax.app import describe
from bitseg_jax.data import families
from bitseg_jax.data.families import folder
from bitseg_jax.data.prepared import splits, write
from bitseg_jax.data.source import Item, Source
from tests.data.reading import read_all, run

H, W = 24, 40


def draw_ids(seed, num_ids=6, height=H, width=W):
  """Blocky random ids, 1-based; some block may be 0 (unlabelled)."""
  rng = np.random.default_rng(seed)
  blocks = rng.integers(0, num_ids + 1, (height // 4, width // 4))
  blocks[0, 0] = 1
  return np.kron(blocks, np.ones((4, 4))).astype(np.uint16)


def save_photo(path, seed=0, height=H, width=W, **options):
  rng = np.random.default_rng(seed)
  tiles = rng.integers(0, 256, (height // 8, width // 8, 3))
  image = np.kron(tiles, np.ones((8, 8, 1))).astype(np.uint8)
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(image).save(path, **options)
  return image


def save_label(path, ids):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(ids).save(path)


def save_mat(path, annotations):
  """The structure of the real files: a 1 x N cell of 1 x 1 structs."""
  cells = np.empty((1, len(annotations)), object)
  for i, ids in enumerate(annotations):
    cells[0, i] = {'Segmentation': ids, 'Boundaries': (ids > 1).astype('u1')}
  path.parent.mkdir(parents=True, exist_ok=True)
  scipy.io.savemat(path, {'groundTruth': cells}, do_compression=True)


def compact(ids):
  """Source ids (0 = unlabelled) as a reader should see them."""
  names = np.unique(ids[ids > 0])
  return np.where(ids > 0, np.searchsorted(names, ids), -1)


def make_folder(root, names='abcd'):
  for i, name in enumerate(names):
    save_photo(root / f'images/{name}.png', i)
    save_label(root / f'labels/{name}.png', draw_ids(i))
  (root / 'train.txt').write_text('\n'.join(names))
  return root


@pytest.fixture(scope='module')
def bsds(tmp_path_factory):
  """A prepared BSDS500 of three photos, and what its files hold."""
  root = tmp_path_factory.mktemp('bsds')
  truth = {}
  for split, names in {'train': ['12', '7'], 'val': ['100']}.items():
    for name in names:
      photo = root / f'source/images/{split}/{name}.jpg'
      save_photo(photo, int(name))
      annotations = [draw_ids(int(name) + i, 5 + i) for i in range(len(name))]
      truth[split, name] = photo, annotations
      mat = root / f'source/groundTruth/{split}/{name}.mat'
      save_mat(mat, annotations)
  (root / 'source/images/train/Thumbs.db').write_bytes(b'no photo')
  assert run(root / 'source', root / 'out', 'bsds500') == 0
  return root / 'out', truth


def test_bsds500_reads_back_pixel_for_pixel(bsds):
  output, truth = bsds
  for (split, name), (photo, annotations) in truth.items():
    record = read_all(output, split)[name]
    np.testing.assert_array_equal(
      record['image'], np.asarray(Image.open(photo))
    )
    assert record['image'].dtype == np.uint8
    for id_map, ids in zip(record['id_maps'], annotations, strict=True):
      assert id_map.dtype == np.int32
      np.testing.assert_array_equal(id_map, compact(ids))
  with pytest.raises(ValueError, match=r"no split 'test'; it has train, val$"):
    splits.open_split(output, 'test')


def test_metadata_counts_annotators_and_entities(bsds):
  output, truth = bsds
  counts = splits.read_metadata(output)['splits']['train']
  maps = [
    ids for (s, _), (_, own) in truth.items() if s == 'train' for ids in own
  ]
  entities = Counter(str(len(np.unique(ids[ids > 0]))) for ids in maps)
  assert counts == {
    'images': 2,
    'annotators_per_image': {'1': 1, '2': 1},
    'entities_per_map': entities,
  }
  table = splits.format_table(splits.read_metadata(output))
  assert table.splitlines()[1].split()[:3] == ['train', '2', '1.50']


def test_reader_survives_pickling_threads_and_grain(bsds):
  output, _ = bsds
  reader = pickle.loads(pickle.dumps(splits.open_split(output, 'train')))
  names = [reader[i]['name'] for i in range(2)]
  with ThreadPoolExecutor(4) as pool:
    records = list(pool.map(lambda i: reader[i % 2], range(40)))
  assert [r['name'] for r in records] == names * 20
  dataset = grain.MapDataset.source(reader).seed(1).shuffle().repeat(3)
  found = [record['name'] for record in dataset.to_iter_dataset()]
  assert sorted(found) == ['12'] * 3 + ['7'] * 3
  with pytest.raises(IndexError, match='record 2 of 2'):
    reader[2]


def test_folder_keeps_annotators_and_wide_ids(tmp_path):
  wide, narrow = draw_ids(1) * 9_000, draw_ids(2).astype(np.uint8)
  save_photo(tmp_path / 'in/images/x.y.JPG', quality=90)
  save_label(tmp_path / 'in/labels/ann/x.y.png', wide)
  save_label(tmp_path / 'in/labels/bob/x.y.png', narrow)
  assert run(tmp_path / 'in', tmp_path / 'out') == 0
  id_maps = read_all(tmp_path / 'out')['x.y']['id_maps']
  for id_map, ids in zip(id_maps, [wide, narrow], strict=True):
    np.testing.assert_array_equal(id_map, compact(ids))


def test_semantic_maps_are_cut_into_connected_parts(tmp_path):
  rows = lambda *lines: np.array([list(map(int, line)) for line in lines])
  semantic = rows('110222', '100021', '020010', '022000')
  parts = rows('110222', '100023', '040030', '044000') - 1
  save_photo(tmp_path / 'in/images/a.png', 0, 32, 48)
  blown = np.kron(semantic, np.ones((8, 8))).astype(np.uint8)
  save_label(tmp_path / 'in/labels/a.png', blown)
  assert run(tmp_path / 'in', tmp_path / 'out', connected=True) == 0
  np.testing.assert_array_equal(
    read_all(tmp_path / 'out')['a']['id_maps'][0],
    np.kron(parts, np.ones((8, 8), int)),
  )
  assert run(tmp_path / 'in', tmp_path / 'out') == 1  # holds another reading


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGB'])
def test_grey_and_cmyk_photos_are_kept(tmp_path, mode):
  image = Image.new('RGB', (W, H), (90, 90, 90))
  (tmp_path / 'in/images').mkdir(parents=True)
  image.convert(mode).save(tmp_path / 'in/images/a.jpg', quality=95)
  save_label(tmp_path / 'in/labels/a.png', draw_ids(0))
  assert run(tmp_path / 'in', tmp_path / 'out', strict=True) == 0
  stored = read_all(tmp_path / 'out')['a']['image']
  assert stored.shape == (H, W, 3)
  assert np.abs(stored.astype(int) - 90).max() <= 2


def test_describe_counts_and_draws(tmp_path):
  source = make_folder(tmp_path / 'in')
  save_label(source / 'labels/bob/a.png', draw_ids(9))
  many = np.arange(H * W).reshape(H, W).astype(np.uint16)
  save_label(source / 'labels/b.png', many)
  assert run(source, tmp_path / 'out') == 0
  text = describe.describe(tmp_path / 'out')
  maps = [m for r in read_all(tmp_path / 'out').values() for m in r['id_maps']]
  share = np.mean([np.mean(m < 0) for m in maps])
  assert '<= 64' in text
  assert '<= 2' in describe.describe(tmp_path / 'out', num_codes=2)
  assert f'width {W} to {W} (median {W}), height {H} to {H}' in text
  assert f'unlabelled: {share:.1%} of the pixels' in text
  with Image.open(tmp_path / 'out/describe.png') as page:
    assert page.width > 1000


@pytest.mark.parametrize(
  'error',
  [
    OSError(28, 'No space left on device'),
    RuntimeError('write() failed: No space left on device; writing x; at 3'),
  ],
)
def test_full_disk_leaves_no_dataset(tmp_path, monkeypatch, capfd, error):
  def fail(*arguments):
    raise error

  monkeypatch.setattr(write.ArrayRecordWriter, 'write', fail)
  assert run(make_folder(tmp_path / 'in'), tmp_path / 'out') == 1
  errors = capfd.readouterr().err
  assert 'No space left on device' in errors and 'Traceback' not in errors
  with pytest.raises(FileNotFoundError):
    splits.open_split(tmp_path / 'out', 'train')


def test_photo_in_two_splits_stays_in_the_first(tmp_path):
  source = make_folder(tmp_path / 'in', 'ab')
  (source / 'test.txt').write_text('b\n')
  source = families.open_source('folder', source)
  assert [item.name for item in source.splits['train']] == ['a', 'b']
  assert 'b.png: is in train already' in source.problems[0]
  make = lambda place, name: Item(name, tmp_path / place, ())
  a, b, c, d = make('a', '1'), make('b', '1'), make('c', '1'), make('a', '2')
  source = Source({'train': [a, b], 'val': [c, d]}, None, [], [])
  source = families._check_names(source)
  assert source.splits == {'train': [a], 'val': [c]}
  assert 'b: another photo of train has its name' in source.problems[0]
  assert 'a: is in train already' in source.problems[1]


def test_large_photos_shrink_and_small_ones_do_not_grow(tmp_path):
  source = tmp_path / 'in'
  tiles = save_photo(source / 'images/big.png', 1, 2 * H, 2 * W) // 2 + 64
  checks = np.indices(tiles.shape[:2]).sum(0)[..., None] % 2
  big = (tiles + 60 * checks).astype(np.uint8)  # its nearest is not its mean
  Image.fromarray(big).save(source / 'images/big.png')
  save_photo(source / 'images/small.png', 2, 8, 16)
  ids = draw_ids(3, 300, 2 * H, 2 * W)
  save_label(source / 'labels/big.png', ids)
  save_label(source / 'labels/small.png', draw_ids(4, 3, 8, 16))
  (source / 'train.txt').write_text('big\nsmall')
  assert run(source, tmp_path / 'out', longest_side=W) == 0
  records = read_all(tmp_path / 'out')
  assert records['small']['image'].shape == (8, 16, 3)
  means = big.reshape(H, 2, W, 2, 3).mean((1, 3))
  assert np.abs(records['big']['image'] - means).mean() < 3
  # blocks of 4 pixels: every second pixel, whichever the nearest is
  np.testing.assert_array_equal(
    records['big']['id_maps'][0], compact(ids)[::2, ::2]
  )


def truncate_photo(root):
  path = root / 'images/b.png'
  path.write_bytes(path.read_bytes()[:-40])


def unlist(root):
  (root / 'images/b.png').unlink()
  (root / 'labels/b.png').unlink()


def fill_with_ids(root):
  save_photo(root / 'images/b.png', 0, 256, 264)
  ids = np.arange(256 * 264).reshape(256, 264) % 65_536
  save_label(root / 'labels/b.png', ids.astype(np.uint16))


def label(ids):
  return lambda root: save_label(root / 'labels/b.png', ids)


@pytest.mark.parametrize(
  ('spoil', 'named'),
  [
    (truncate_photo, 'images/b.png'),
    (label(draw_ids(1, height=W, width=H)), 'labels/b.png'),
    (lambda root: (root / 'labels/b.png').unlink(), 'labels/b.png'),
    (lambda root: save_photo(root / 'images/b.jpg'), 'images/b.jpg'),
    (
      lambda root: (root / 'labels/b.png').write_bytes(b''),
      'b.png: empty file',
    ),
    (label(np.zeros((H, W), np.uint16)), 'labels/b.png'),
    (fill_with_ids, '65535 ids'),
    (unlist, 'train.txt: lists b'),
  ],
)
def test_bad_item_is_named_in_one_line_and_left_out(
  tmp_path, capfd, spoil, named
):
  source = make_folder(tmp_path / 'in')
  spoil(source)
  assert run(source, tmp_path / 'strict', strict=True) == 1
  with pytest.raises(FileNotFoundError, match='no prepared dataset'):
    splits.open_split(tmp_path / 'strict', 'train')
  capfd.readouterr()
  assert run(source, tmp_path / 'out') == 0
  errors = capfd.readouterr().err
  assert [named in line for line in errors.splitlines()].count(True) == 1
  assert '1 problem' in errors and 'Traceback' not in errors
  assert sorted(read_all(tmp_path / 'out')) == ['a', 'c', 'd']


def test_a_bad_file_whose_path_is_no_text_is_named(tmp_path, capfd):
  source = make_folder(tmp_path / 'in')
  folder = os.fsencode(source / 'labels') + b'/caf\xe9'
  os.mkdir(folder)
  Path(os.fsdecode(folder), 'b.png').write_bytes(b'no PNG')
  assert run(source, tmp_path / 'out') == 0
  assert r'caf\udce9/b.png: unreadable' in capfd.readouterr().err
  assert sorted(read_all(tmp_path / 'out')) == ['a', 'c', 'd']


def test_names_are_the_same_in_every_locale(tmp_path):
  source, output = make_folder(tmp_path / 'in', 'aü'), tmp_path / 'out'
  (source / 'train.txt').write_text('a\nü', 'utf-8')
  save_photo(source / 'images/no text \udcff.png')
  command = 'prepare', '--dataset=folder', f'--source={source}'
  ascii_only = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
  result = subprocess.run(
    [sys.executable, '-m', 'bitseg_jax', *command, f'--output={output}'],
    env={**os.environ, **ascii_only},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert sorted(read_all(output)) == ['a', 'ü']
  assert 'photos are in none of train.txt' in result.stdout


def test_damaged_mat_is_named_and_left_out(tmp_path, capfd):
  for name in 'ab':
    save_photo(tmp_path / f'in/images/val/{name}.jpg')
    save_mat(tmp_path / f'in/groundTruth/val/{name}.mat', [draw_ids(0)])
  path = tmp_path / 'in/groundTruth/val/b.mat'
  path.write_bytes(path.read_bytes()[:200])
  assert run(tmp_path / 'in', tmp_path / 'out', 'bsds500') == 0
  assert 'val/b.mat: not a whole .mat file' in capfd.readouterr().err
  assert list(read_all(tmp_path / 'out', 'val')) == ['a']


@pytest.mark.parametrize('dataset', families.FAMILIES)
def test_wrong_and_empty_sources_give_one_line(tmp_path, capfd, dataset):
  for source in (tmp_path / 'absent', tmp_path):
    assert run(source, tmp_path / 'out', dataset) == 1
    errors = capfd.readouterr().err
    assert errors.startswith(f'error: {source}: no ')
    assert errors.count('\n') == 1
  source = make_folder(tmp_path / 'in', 'ab')
  for path in (source / 'labels').iterdir():
    path.write_bytes(b'')
  assert run(source, tmp_path / 'out') == 1
  assert 'error: nothing is left' in capfd.readouterr().err
  with pytest.raises(FileNotFoundError):
    splits.open_split(tmp_path / 'out', 'train')


@pytest.fixture
def dies_at(monkeypatch):
  """Makes the encoding die as if by Ctrl-C at one photo; counts the others."""
  encode, seen = write.encode, []

  def arm(name):
    seen.clear()

    def encode_or_die(source, item, longest_side):
      if item.name == name:
        raise KeyboardInterrupt
      seen.append(item.name)
      return encode(source, item, longest_side)

    monkeypatch.setattr(write, 'encode', encode_or_die)
    return seen

  monkeypatch.setattr(write, 'SHARD', 2)
  return arm


def test_interrupted_run_goes_on(tmp_path, dies_at, capfd):
  source = make_folder(tmp_path / 'in', 'abcdefg')
  order = [item.name for item in folder.open_source(source).splits['train']]
  dies_at(order[4])
  assert run(source, tmp_path / 'out') == 130
  assert 'run the same command to resume' in capfd.readouterr().err
  command = f'prepare --dataset=NAME --source=DIR --output={tmp_path / "out"}$'
  with pytest.raises(FileNotFoundError, match=command):
    splits.open_split(tmp_path / 'out', 'train')
  seen = dies_at(None)
  assert run(source, tmp_path / 'out') == 0
  assert ': is continued' in capfd.readouterr().out
  assert set(seen) == set(order[4:])  # a thread of the first may still end
  assert run(source, tmp_path / 'other') == 0
  resumed, whole = read_all(tmp_path / 'out'), read_all(tmp_path / 'other')
  assert resumed.keys() == whole.keys() == set('abcdefg')
  for name, example in whole.items():
    np.testing.assert_array_equal(resumed[name]['image'], example['image'])
  left = [path.name for path in (tmp_path / 'out').iterdir()]
  assert left == ['entity_segmentation']


@pytest.mark.parametrize('change', ['file', 'setting'])
def test_interrupted_run_is_of_no_use_to_another(
  tmp_path, dies_at, change, capfd
):
  source = make_folder(tmp_path / 'in', 'abcd')
  dies_at('d')
  assert run(source, tmp_path / 'out') == 130
  seen = dies_at(None)
  if change == 'file':
    os.utime(source / 'images/a.png', ns=(0, 0))
  side = 16 if change == 'setting' else 512
  assert run(source, tmp_path / 'out', longest_side=side) == 0
  assert 'is of another source or other settings' in capfd.readouterr().out
  assert sorted(seen) == list('abcd')


def test_old_dataset_stays_until_the_new_one_is_whole(tmp_path, dies_at, capfd):
  source, output = make_folder(tmp_path / 'in', 'abcd'), tmp_path / 'out'
  assert run(source, output) == 0
  stamp = splits.dataset_path(output).stat().st_mtime_ns
  capfd.readouterr()
  assert run(source, output) == 0
  assert 'already prepared' in capfd.readouterr().out
  assert run(source, output, longest_side=16) == 1
  assert (
    'already holds dataset folder, longest_side 512' in capfd.readouterr().err
  )
  dies_at('d')
  assert run(source, output, longest_side=16, overwrite=True) == 130
  assert splits.dataset_path(output).stat().st_mtime_ns == stamp
  assert read_all(output)['a']['image'].shape == (H, W, 3)
  dies_at(None)
  assert run(source, output, longest_side=16, overwrite=True) == 0
  assert read_all(output)['a']['image'].shape == (10, 16, 3)


@pytest.mark.parametrize('names', ['abcd', 'abcde', 'ab'])
def test_shards_hold_every_item_once(tmp_path, monkeypatch, names):
  monkeypatch.setattr(write, 'SHARD', 2)
  source = make_folder(tmp_path / 'in', names)
  (source / 'labels/b.png').write_bytes(b'')
  assert run(source, tmp_path / 'out') == 0
  reader = splits.open_split(tmp_path / 'out', 'train')
  found = [reader[i]['name'] for i in range(len(reader))]
  assert found == sorted(set(names) - {'b'})
  shard = next((tmp_path / 'out').rglob('*train.array_record*'))
  shard.write_bytes(shard.read_bytes()[:-1])
  with pytest.raises(ValueError, match=r'is damaged \(train has'):
    splits.open_split(tmp_path / 'out', 'train')


def test_what_strict_refuses_is_not_encoded_again(
  tmp_path, monkeypatch, capsys
):
  (tmp_path / 'temporary').mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
  source = make_folder(tmp_path / 'in')
  (source / 'labels/b.png').write_bytes(b'')
  output = source / 'prepared'  # it may lie in the source
  assert run(source, output, strict=True) == 1
  (output / '.lock').write_text('of another process')
  monkeypatch.setattr(write, '_write_shard', None)
  assert run(source, output) == 0
  assert ': is continued' in capsys.readouterr().out
  assert sorted(read_all(output)) == list('acd')
  assert not list((tmp_path / 'temporary').iterdir())


@pytest.mark.parametrize('length, zeros', [(0, 0), (0, 1), (0, 99), (10, 0)])
def test_a_block_that_a_crash_spoilt_is_encoded_again(tmp_path, length, zeros):
  source = make_folder(tmp_path / 'in')
  (source / 'labels/b.png').write_bytes(b'')
  assert run(source, tmp_path / 'out', strict=True) == 1
  (block,) = (tmp_path / 'out').rglob('train-*.json')
  block.write_bytes(block.read_bytes()[:length] + bytes(zeros))
  assert run(source, tmp_path / 'out') == 0
  assert sorted(read_all(tmp_path / 'out')) == list('acd')


def test_seeded_split_is_whole_disjoint_and_stable(tmp_path):
  names = [f'{i:02}' for i in range(40)]
  for kind in ('images', 'labels'):
    (tmp_path / kind).mkdir()
    for name in names:
      (tmp_path / kind / f'{name}.png').touch()
  first, again = (folder.open_source(tmp_path) for _ in range(2))
  assert first.splits == again.splits
  assert [len(first.splits[s]) for s in ('train', 'val', 'test')] == [32, 4, 4]
  assert sorted(i.name for v in first.splits.values() for i in v) == names
  assert 'seed 0' in first.notes[0]


def test_door_works_where_tensorflow_cannot_be_imported(tmp_path):
  source = make_folder(tmp_path / 'in')
  (tmp_path / 'tensorflow.py').write_text('raise RuntimeError("imported")')
  flags = ['--dataset=folder', f'--source={source}', f'--output={tmp_path}/out']
  done = subprocess.run(
    [sys.executable, '-m', 'bitseg_jax.prepare', *flags],
    capture_output=True,
    text=True,
    cwd=Path(prepare.__file__).parents[1],
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
  )
  assert done.returncode == 0, done.stderr
  assert 'nothing for val and test' in done.stdout
  assert done.stdout.splitlines()[2].split()[:2] == ['train', '4']
  assert 'images/s' in done.stderr
  assert sorted(read_all(tmp_path / 'out')) == list('abcd')
  assert 'tensorflow' not in sys.modules
