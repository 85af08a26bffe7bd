"""Folders of photos and labels, named and listed as others do."""

import unicodedata

import numpy as np
import pytest
import tifffile
from PIL import Image

from bitseg_jax.data.families import folder
from tests.data.reading import read_all, run

IDS = np.kron([[1, 2], [3, 0]], np.ones((12, 12), int)).astype(np.uint8)


def save(path, pixels=IDS):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.npy':
    np.save(path, pixels)
  elif path.suffix == '.tif':
    tifffile.imwrite(path, pixels.astype(np.uint32) * 70_000)
  else:
    Image.fromarray(pixels).save(path)


def make(root, label='{}.png', names=('im0', 'im1')):
  for i, name in enumerate(names):
    save(root / f'images/{name}.jpg', np.full((24, 24, 3), 50 * i, np.uint8))
    save(root / 'labels' / label.format(name))
  return root


@pytest.mark.parametrize(
  'label',
  [
    *('{}.tif', '{}.npy', '{}_labels.png', '{}_masks.png', '{}_mask.tif'),
    *('{}_cp_masks.png', '{}_cp_masks.tif', '{}.jpg.png', 'ann/{}_labels.png'),
  ],
)
def test_labels_are_found_as_others_name_them(tmp_path, label):
  source = make(tmp_path / 'in', label)
  assert run(source, tmp_path / 'out', strict=True) == 0
  expected = np.where(IDS > 0, IDS.astype(int) - 1, -1)
  records = read_all(tmp_path / 'out')
  for name in ('im0', 'im1'):
    np.testing.assert_array_equal(records[name]['id_maps'][0], expected)


def test_what_predict_writes_beside_its_labels_is_no_label(tmp_path):
  source = make(tmp_path, '{}_labels.png')
  for name in ('im0_overlay.png', 'im0_sample_1.png', 'im0.json'):
    save(tmp_path / f'labels/{name}') if 'png' in name else (
      tmp_path / f'labels/{name}'
    ).write_text('{}')
  found = folder.open_source(source)
  assert not found.problems
  paths = [i.labels[0].name for i in found.splits['train']]
  assert paths == ['im0_labels.png', 'im1_labels.png']


def test_a_photo_whose_name_ends_as_a_label_keeps_its_own(tmp_path):
  make(tmp_path, names=('a', 'a_masks'))
  # As CVAT exports them for Pascal VOC.
  (tmp_path / 'images').rename(tmp_path / 'JPEGImages')
  (tmp_path / 'labels').rename(tmp_path / 'SegmentationObject')
  source = folder.open_source(tmp_path)
  assert not source.problems
  assert [i.labels[0].stem for i in source.splits['train']] == ['a', 'a_masks']


@pytest.mark.parametrize('name', ['im0.xml', 'im0.jpg', 'im0-tag-car-0.png'])
def test_a_photo_without_a_label_is_named(tmp_path, name):
  source = make(tmp_path)
  (tmp_path / 'labels/im0.png').rename(tmp_path / 'labels' / name)
  (problem,) = folder.open_source(source).problems
  assert problem.startswith(f'{tmp_path}/images/im0.jpg: no ')
  assert 'im0.png|.tif|' in problem


@pytest.mark.parametrize(
  ('name', 'advice'),
  [
    ('task-1-annotation-1-by-1-tag-Car-0', 'no photo of this name'),
    ('im0_masks', 'may both be the label of im0; keep one'),
  ],
)
def test_labels_too_many_are_named(tmp_path, name, advice):
  source = make(tmp_path)
  save(tmp_path / f'labels/{name}.png')
  assert advice in ''.join(folder.open_source(source).problems)


@pytest.mark.parametrize(
  'content',
  [
    b'\xef\xbb\xbfimages\\caf\xc3\xa9.jpg\r\nIM1.JPG\r\n',
    'C:\\data\\café.png\r\nim1\r\n'.encode('utf-16'),
    'café.jpg\nim1'.encode('cp1252'),
    'images/café.jpg labels/café.png\nim1.jpg,im1.png'.encode(),
    unicodedata.normalize('NFD', './café\n./im1\n').encode(),
  ],
)
@pytest.mark.parametrize('form', ['NFC', 'NFD'])
def test_lists_and_names_come_from_any_system(tmp_path, content, form):
  name = unicodedata.normalize(form, 'café')
  source = make(tmp_path, names=(name, 'im1'))
  (tmp_path / 'train.txt').write_bytes(content)
  found = folder.open_source(source)
  assert not found.problems
  assert [item.name for item in found.splits['train']] == ['café', 'im1']


def test_what_may_not_be_meant_is_said_once(tmp_path, capsys):
  source = make(tmp_path / 'in')
  for i in range(2):
    void = np.where(IDS == 0, 255, IDS).astype(np.uint8)
    save(source / f'labels/im{i}.png', void)
    deep = np.random.default_rng(i).integers(0, 4096, (24, 24), np.uint16)
    (source / f'images/im{i}.jpg').unlink()
    save(source / f'images/im{i}.png', deep)
  assert run(source, tmp_path / 'out') == 0
  said = capsys.readouterr().out
  assert said.count('255 is taken for an entity') == 1
  assert said.count('uint16 pixels are stretched') == 1
  assert said.count('(and 1 more alike)') == 2
  assert run(source, tmp_path / 'ignored', ignore=[255]) == 0
  assert '255' not in capsys.readouterr().out.replace('2550', '')
  record = read_all(tmp_path / 'ignored')['im0']
  expected = np.where(IDS > 0, IDS.astype(int) - 1, -1)
  np.testing.assert_array_equal(record['id_maps'][0], expected)


@pytest.mark.parametrize('orientation', [3, 6])
def test_labels_on_the_photo_as_stored_are_asked_about(
  tmp_path, capsys, orientation
):
  exif = Image.Exif()
  exif[0x0112] = orientation
  source = make(tmp_path / 'in')
  colours = np.array([(9,) * 3, (90,) * 3, (170,) * 3, (250,) * 3], np.uint8)
  Image.fromarray(colours[IDS]).save(
    source / 'images/im0.jpg', exif=exif, quality=95
  )
  assert run(source, tmp_path / 'turned') == 0
  said = capsys.readouterr().out
  assert (
    'im0.jpg: is turned by its EXIF data' in said and '--exif=ignore' in said
  )
  assert run(source, tmp_path / 'stored', exif='ignore') == 0
  assert 'EXIF' not in capsys.readouterr().out
  turned, stored = (
    read_all(tmp_path / name)['im0'] for name in ('turned', 'stored')
  )
  for k in range(3):
    pixels = stored['image'][stored['id_maps'][0] == k]
    assert np.abs(pixels.astype(int) - colours[k + 1]).max() < 20
  upright = np.rot90(stored['image'], {3: 2, 6: -1}[orientation])
  assert np.abs(turned['image'].astype(int) - upright).mean() < 3


def test_labels_of_the_size_as_stored_name_the_flag(tmp_path, capfd):
  exif = Image.Exif()
  exif[0x0112] = 6
  source = make(tmp_path)
  photo = np.zeros((24, 36, 3), np.uint8)
  Image.fromarray(photo).save(source / 'images/im0.jpg', exif=exif)
  save(source / 'labels/im0.png', np.ones((24, 36), np.uint8))
  assert run(source, tmp_path / 'out', strict=True) == 1
  assert 'EXIF data turns it, give --exif=ignore' in capfd.readouterr().err
  assert run(source, tmp_path / 'out', exif='ignore', strict=True) == 0


def test_a_page_of_a_stack_is_chosen(tmp_path, capsys):
  source = make(tmp_path / 'in')
  (source / 'images/im0.jpg').unlink()
  pages = np.stack([np.full((24, 24), k, np.uint8) for k in (10, 200)])
  tifffile.imwrite(source / 'images/im0.tif', pages)
  (source / 'images/im1.jpg').unlink()
  tifffile.imwrite(source / 'images/im1.tif', pages)
  for page, value in (0, 10), (1, 200):
    options = {'page': page} if page else {}
    assert run(source, tmp_path / f'{page}', **options) == 0
    said = 'the first of its 2 pages' in capsys.readouterr().out
    assert said == (page == 0)
    record = read_all(tmp_path / f'{page}')['im0']
    assert abs(record['image'].mean() - value) < 2
