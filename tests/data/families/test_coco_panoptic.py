"""COCO panoptic: ids in colours, crowds left out, split by file name."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from bitseg_jax import cli, prepare
from bitseg_jax.data.families import coco
from bitseg_jax.data.prepared import splits

H, W = 16, 24
CROWD = 5


def draw_ids(seed):
  """Blocks of wide ids; 0 and a crowd among them."""
  rng = np.random.default_rng(seed)
  ids = np.array([0, CROWD, 300, 70_000, 16_777_215])
  blocks = rng.integers(0, len(ids), (H // 4, W // 4))
  blocks[0, :3] = [2, 0, 1]
  return np.kron(ids[blocks], np.ones((4, 4), int))


def make_split(photos, json_path, seeds):
  truth = {}
  folder = json_path.with_suffix('')
  for place in (photos, folder):
    place.mkdir(parents=True, exist_ok=True)
  images, annotations = [], []
  for seed in seeds:
    ids = draw_ids(seed)
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(folder / f'{seed:03}.png')
    Image.new('RGB', (W, H), (seed, 0, 0)).save(photos / f'{seed:03}.jpg')
    images.append({'id': seed, 'file_name': f'{seed:03}.jpg'})
    segments = [
      {'id': int(i), 'iscrowd': int(i == CROWD)}
      for i in np.unique(ids)
      if i > 0
    ]
    annotations.append(
      {
        'image_id': seed,
        'file_name': f'{seed:03}.png',
        'segments_info': segments,
      }
    )
    truth[f'{seed:03}'] = ids
  content = {'images': images, 'annotations': annotations}
  json_path.write_text(json.dumps(content))
  return truth


def make_tree(root):
  return {
    split: make_split(
      root / f'{split}2017',
      root / f'annotations/panoptic_{split}2017.json',
      seeds,
    )
    for split, seeds in {'train': [1, 2, 3], 'val': [4]}.items()
  }


def run(source, output=None, **options):
  return cli.call(
    lambda: prepare.prepare('coco_panoptic', str(source), output, **options)
  )


def test_reads_back_pixel_for_pixel(tmp_path):
  truth = make_tree(tmp_path / 'in')
  assert run(tmp_path / 'in', str(tmp_path / 'out'), strict=True) == 0
  for split, maps in truth.items():
    reader = splits.open_split(tmp_path / 'out', split)
    records = {r['name']: r for r in (reader[i] for i in range(len(reader)))}
    assert records.keys() == maps.keys()
    for name, ids in maps.items():
      ids = np.where(ids == CROWD, 0, ids)
      ranks = np.searchsorted(np.unique(ids[ids > 0]), ids)
      np.testing.assert_array_equal(
        records[name]['id_maps'][0], np.where(ids > 0, ranks, -1)
      )


def test_file_without_a_split_in_its_name_is_split_at_random(tmp_path):
  path = tmp_path / 'panoptic_examples.json'
  make_split(tmp_path / 'input_images', path, range(20))
  path.with_name('panoptic_other.json').write_text('{}')  # no folder, no matter
  source = coco.open_panoptic(tmp_path)
  sizes = {split: len(items) for split, items in source.splits.items()}
  assert sizes == {'train': 16, 'val': 2, 'test': 2}
  assert 'at random with seed 0' in source.notes[0]


def test_a_label_is_not_taken_for_the_photo_of_its_name(tmp_path):
  photos, path = tmp_path / 'images/train', tmp_path / 'train.json'
  make_split(photos, path, [1, 2])
  for photo in list(photos.iterdir()):
    photo.rename(photo.with_suffix('.png'))
  path.write_text(path.read_text().replace('.jpg', '.png'))
  (items,) = coco.open_panoptic(tmp_path).splits.values()
  assert [item.photo.parent for item in items] == [photos] * 2


def change_first(key, value=None):
  def spoil(root):
    path = root / 'annotations/panoptic_train2017.json'
    content = json.loads(path.read_text())
    if value is None:
      del content['annotations'][0][key]
    else:
      content['annotations'][0][key] = value
    path.write_text(json.dumps(content))

  return spoil


def empty_png(root):
  (root / 'annotations/panoptic_train2017/001.png').write_bytes(b'')


def missing_photo(root):
  (root / 'train2017/001.jpg').unlink()


@pytest.mark.parametrize(
  ('spoil', 'named'),
  [
    (change_first('segments_info'), "annotations[0] has no 'segments_info'"),
    (change_first('segments_info', [{'id': 9}]), 'does not list, such as 5'),
    (change_first('segments_info', [{}]), 'annotations[0]: a segment has no'),
    (change_first('image_id', 77), 'annotations[0]: images lacks its id 77'),
    (change_first('file_name', '002.png'), '002.png is listed twice'),
    (
      change_first('segments_info', [{'id': 5, 'iscrowd': 'false'}]),
      "iscrowd 'false'; it must be 0 or 1",
    ),
    (
      change_first('segments_info', [{'id': 2**40}]),
      'has the id 1099511627776',
    ),
    (change_first('segments_info', {}), 'segments_info is {}, no list'),
    (change_first('image_id', [1]), 'images lacks its id [1]'),
    (change_first('file_name', 3), '3 is no file name'),
    (empty_png, '001.png: empty file'),
    (missing_photo, 'no photo 001.jpg in'),
  ],
)
def test_bad_item_is_named_and_left_out(tmp_path, capfd, spoil, named):
  make_tree(tmp_path)
  spoil(tmp_path)
  assert run(tmp_path) == 1
  errors = capfd.readouterr().err
  assert [named in line for line in errors.splitlines()].count(True) == 1
  assert '1 problem' in errors and 'Traceback' not in errors


@pytest.mark.parametrize(
  'name, split',
  [
    ('panoptic_val2017', ['val']),
    ('train', ['train']),
    ('latest', ['test', 'train', 'val']),
    ('panoptic_trainval', ['test', 'train', 'val']),
    ('train_val', ['test', 'train', 'val']),
  ],
)
def test_only_a_word_of_its_own_names_a_split(tmp_path, name, split):
  make_split(tmp_path / 'images', tmp_path / f'{name}.json', range(20))
  assert sorted(coco.open_panoptic(tmp_path).splits) == split


@pytest.mark.parametrize('where', ['up', 'absolute'])
@pytest.mark.parametrize('key', ['images', 'annotations'])
def test_nothing_outside_the_source_is_opened(tmp_path, capfd, where, key):
  root = tmp_path / 'in'
  make_tree(root)
  suffix = '.jpg' if key == 'images' else '.png'
  secret = tmp_path / f'secret{suffix}'
  folder = 'train2017' if key == 'images' else 'annotations/panoptic_train2017'
  (root / folder / f'001{suffix}').rename(secret)
  name = {
    'up': os.path.relpath(secret, root / folder),
    'absolute': str(secret),
  }[where]
  path = root / 'annotations/panoptic_train2017.json'
  content = json.loads(path.read_text())
  content[key][0]['file_name'] = name
  path.write_text(json.dumps(content))
  assert run(root) == 1
  errors = capfd.readouterr().err
  assert '1 problem' in errors and f'out of {root}' in errors


def test_wrong_source_gives_one_line(tmp_path, capfd):
  assert run(tmp_path) == 1
  errors = capfd.readouterr().err
  assert errors.startswith(f'error: {tmp_path}: no NAME.json')
  assert errors.count('\n') == 1
