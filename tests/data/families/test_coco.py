"""COCO: ids in colours, masks, crowds left out, names as others write them."""

import json
import os

import numpy as np
import pycocotools.mask
import pytest
from PIL import Image

from bitseg_jax.data.families import coco
from bitseg_jax.data.outside import SourceError
from tests.data import reading

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
    found = np.unique(ids[ids > 0]).tolist()
    segments = [{'id': i, 'iscrowd': int(i == CROWD)} for i in found]
    one = {'image_id': seed, 'file_name': f'{seed:03}.png'}
    annotations.append({**one, 'segments_info': segments})
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


def edit(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def run(source, dataset='coco_panoptic'):
  return reading.run(source, source / 'out', dataset, strict=True)


def test_reads_back_pixel_for_pixel(tmp_path):
  truth = make_tree(tmp_path / 'in')
  assert run(tmp_path / 'in') == 0
  for split, maps in truth.items():
    records = reading.read_all(tmp_path / 'in/out', split)
    assert records.keys() == maps.keys()
    for name, ids in maps.items():
      ids = np.where(ids == CROWD, 0, ids)
      ranks = np.searchsorted(np.unique(ids[ids > 0]), ids)
      np.testing.assert_array_equal(
        records[name]['id_maps'][0], np.where(ids > 0, ranks, -1)
      )


def test_a_label_is_not_taken_for_the_photo_of_its_name(tmp_path):
  photos, path = tmp_path / 'images/train', tmp_path / 'train.json'
  make_split(photos, path, [1, 2])
  for photo in list(photos.iterdir()):
    photo.rename(photo.with_suffix('.png'))
  path.write_text(path.read_text().replace('.jpg', '.png'))
  (items,) = coco.open_panoptic(tmp_path).splits.values()
  assert [item.photo.parent for item in items] == [photos] * 2


def change_first(**values):
  def spoil(root):
    path = root / 'annotations/panoptic_train2017.json'
    edit(path, lambda content: content['annotations'][0].update(values))

  return spoil


def without_segments(root):
  path = root / 'annotations/panoptic_train2017.json'
  edit(path, lambda content: content['annotations'][0].pop('segments_info'))


def empty_png(root):
  (root / 'annotations/panoptic_train2017/001.png').write_bytes(b'')


def missing_photo(root):
  (root / 'train2017/001.jpg').unlink()


FIRST = 'annotations[0]: left out '


@pytest.mark.parametrize(
  ('spoil', 'named'),
  [
    (without_segments, FIRST + "(no 'segments_info' in it)"),
    (change_first(segments_info=[{'id': 9}]), 'does not list, such as 5'),
    (change_first(segments_info=[{}]), FIRST + "(no 'id' in it)"),
    (change_first(image_id=77), FIRST + '(images lacks its id 77)'),
    (change_first(image_id=2), 'another photo of train has its name'),
    (
      change_first(segments_info=[{'id': 5, 'iscrowd': 'false'}]),
      "'false' should be a number in 0 to 1",
    ),
    (
      change_first(segments_info=[{'id': 2**40}]),
      '1099511627776 should be a number in 1 to 16777215',
    ),
    (change_first(segments_info={}), 'does not list, such as'),
    (change_first(image_id=[1]), 'images lacks its id [1]'),
    (change_first(file_name=3), '3 is no file name'),
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


EVERY = {'train': 16, 'val': 2, 'test': 2}


@pytest.mark.parametrize(
  'name, sizes',
  [
    ('panoptic_val2017', {'val': 20}),
    ('train', {'train': 20}),
    ('Validation_set', {'val': 20}),
    *((name, EVERY) for name in ('latest', 'panoptic_trainval', 'train_val')),
  ],
)
def test_only_a_word_of_its_own_names_a_split(tmp_path, name, sizes):
  make_split(tmp_path / 'input_images', tmp_path / f'{name}.json', range(20))
  (tmp_path / 'panoptic_other.json').write_text('{}')  # no folder, no matter
  source = coco.open_panoptic(tmp_path)
  assert {s: len(items) for s, items in source.splits.items()} == sizes
  assert ('at random with seed 0' in ''.join(source.notes)) == (sizes is EVERY)


@pytest.mark.parametrize('where', ['up', 'absolute'])
@pytest.mark.parametrize('key', ['images', 'annotations'])
def test_nothing_outside_the_source_is_opened(tmp_path, capfd, where, key):
  root = tmp_path / 'in'
  make_tree(root)
  suffix = '.jpg' if key == 'images' else '.png'
  secret = tmp_path / f'secret{suffix}'
  folder = 'train2017' if key == 'images' else 'annotations/panoptic_train2017'
  (root / folder / f'001{suffix}').rename(secret)
  up = os.path.relpath(secret, root / folder)
  name = up if where == 'up' else str(secret)
  path = root / 'annotations/panoptic_train2017.json'
  edit(path, lambda content: content[key][0].update(file_name=name))
  assert run(root) == 1
  errors = capfd.readouterr().err
  assert '1 problem' in errors and f'out of {root}' in errors


def rename_photos(spelled):
  def change(content):
    for image in content['images']:
      image['file_name'] = spelled(image['file_name'])

  return change


def ids_as_text(content):
  for image in content['images']:
    image['id'] = str(image['id'])
  for annotation in content['annotations']:
    for segment in annotation['segments_info']:
      segment.update(id=str(segment['id']), iscrowd=str(segment['iscrowd']))


def labels_with_folder(content):
  for annotation in content['annotations']:
    annotation['file_name'] = f'panoptic_train2017/{annotation["file_name"]}'


@pytest.mark.parametrize(
  'change',
  [
    rename_photos(lambda name: f'train2017/{name}'),
    rename_photos(lambda name: f'train2017\\{name}'),
    rename_photos(lambda name: os.path.abspath(f'in/train2017/{name}')),
    ids_as_text,
    labels_with_folder,
  ],
)
def test_names_and_ids_are_read_as_others_write_them(
  tmp_path, monkeypatch, change
):
  monkeypatch.chdir(tmp_path)
  make_tree(tmp_path / 'in')
  plain = coco.open_panoptic(tmp_path / 'in')
  edit(tmp_path / 'in/annotations/panoptic_train2017.json', change)
  for place in ('train2017', 'annotations'):  # folders may be links
    (tmp_path / 'in' / place).rename(tmp_path / place)
    (tmp_path / 'in' / place).symlink_to(tmp_path / place)
  for source in (tmp_path / 'in', 'in'):
    found = coco.open_panoptic(source)
    assert not found.problems
    for a, b in zip(plain.splits['train'], found.splits['train'], strict=True):
      assert a.name == b.name and os.path.samefile(a.photo, b.photo)
      np.testing.assert_array_equal(
        found.load_id_maps(b), plain.load_id_maps(a)
      )


def test_an_id_of_two_images_is_named_and_photos_without_labels(tmp_path):
  make_tree(tmp_path)
  path = tmp_path / 'annotations/panoptic_train2017.json'
  edit(path, lambda content: content['annotations'].pop())
  source = coco.open_panoptic(tmp_path)
  assert [item.name for item in source.splits['train']] == ['001', '002']
  assert '1 images without labels are left out' in source.notes[0]
  edit(path, lambda c: c['images'].append({'id': 1, 'file_name': '002.jpg'}))
  with pytest.raises(SourceError, match=r"to '001\.jpg' and to '002\.jpg'"):
    coco.open_panoptic(tmp_path)


def test_names_may_differ_by_folder_and_be_equal_in_two_splits(tmp_path):
  for split in ('train', 'val'):
    path = tmp_path / f'panoptic_{split}.json'
    whole = {'images': [], 'annotations': []}
    for k, clip in enumerate('ab'):
      part = path.with_suffix('') / f'{clip}.json'
      make_split(tmp_path / split / clip, part, [1, 2])
      for key, entries in json.loads(part.read_text()).items():
        number = 'id' if key == 'images' else 'image_id'
        for one in entries:
          one['file_name'] = f'{clip}/{one["file_name"]}'
          one[number] += 10 * k
          whole[key].append(one)
    path.write_text(json.dumps(whole))
  assert run(tmp_path) == 0
  for split in ('train', 'val'):
    names = list(reading.read_all(tmp_path / 'out', split))
    assert names == ['a/001', 'a/002', 'b/001', 'b/002']


def test_a_palette_stands_for_its_colours(tmp_path):
  truth = make_tree(tmp_path)['val']
  path = tmp_path / 'annotations/panoptic_val2017/004.png'
  Image.open(path).quantize(8).save(path)
  source = coco.open_panoptic(tmp_path)
  (id_map,) = source.load_id_maps(source.splits['val'][0])
  void = (truth['004'] == 0) | (truth['004'] == CROWD)
  np.testing.assert_array_equal(id_map, np.where(void, -1, truth['004']))


def make_instances(path, photos, place=''):
  """Three photos: polygons and a crowd, run lengths both ways, nothing."""
  photos.mkdir(parents=True)
  for i in range(3):
    Image.new('RGB', (W, H), (90 * i, 0, 0)).save(photos / f'{i}.jpg')
  square = lambda a, b: [[a, a, b, a, b, b, a, b]]
  mask = np.zeros((H, W), np.uint8)
  mask[2:9, 3:20] = 1
  counts = pycocotools.mask.encode(np.asfortranarray(mask))['counts'].decode()
  listed = [
    (0, square(1, 9), 0),
    (0, square(5, 8), 0),
    (0, {'size': [H, W], 'counts': [0, H * W]}, 1),
    (1, {'size': [H, W], 'counts': counts}, 0),
    (1, {'size': [H, W], 'counts': [0, 5, H * W - 5]}, 0),
  ]
  annotations = [
    {'id': i, 'image_id': k, 'category_id': 1, 'segmentation': s, 'iscrowd': c}
    for i, (k, s, c) in enumerate(listed)
  ]
  images = [
    {'id': i, 'file_name': f'{place}{i}.jpg', 'height': H, 'width': W}
    for i in range(3)
  ]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({'images': images, 'annotations': annotations}))
  first = np.full((H, W), -1)
  first[1:9, 1:9] = 0
  first[5:8, 5:8] = 1
  second = np.where(mask, 0, -1)
  second[:5, 0] = 1
  return [first, second]


@pytest.mark.parametrize(
  ('path', 'photos', 'place'),
  [
    ('annotations/instances_val2017.json', 'val2017', ''),
    ('annotations/instances_val2017.json', 'images/val2017', ''),
    ('result_val.json', 'images', 'images/'),
    ('result_val.json', 'images', '.\\images\\'),
    ('valid/_annotations.coco.json', 'valid', ''),
  ],
)
def test_instances_are_painted_and_crowds_left_out(
  tmp_path, path, photos, place
):
  truth = make_instances(tmp_path / path, tmp_path / photos, place)
  if 'annotations/' in path:
    (tmp_path / 'annotations/captions_val2017.json').write_text('{}')
  assert run(tmp_path, 'coco_instances') == 0
  records = reading.read_all(tmp_path / 'out', 'val')
  assert list(records) == ['0', '1']
  for record, expected in zip(records.values(), truth, strict=True):
    np.testing.assert_array_equal(record['id_maps'][0], expected)


def test_the_wrong_one_of_two_formats_is_told(tmp_path):
  make_instances(tmp_path / 'instances_val.json', tmp_path / 'val')
  with pytest.raises(SourceError, match='dataset=coco_instances'):
    coco.open_panoptic(tmp_path)
