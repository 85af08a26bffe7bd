"""EntitySeg: its layout, its three kinds of segmentation, its splits."""

import functools
import json
import re

import numpy as np
import pycocotools.mask
import pytest
from PIL import Image

from bitseg_jax.data import rle
from bitseg_jax.data.families import entityseg
from bitseg_jax.data.outside import SourceError
from tests.data import reading
from tests.data.reading import read_all

FOLDERS = ('entity_01_11580', 'entity_02_11598', 'entity_03_10049')
H, W = 24, 36


def segmentation(mask, kind):
  """A mask as one of COCO's three kinds."""
  if kind == 'polygon':  # a rectangle around each run of each row
    polygons = []
    for y, row in enumerate(mask):
      edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
      for x0, x1 in edges.reshape(-1, 2).tolist():
        polygons.append([x0, y, x1, y, x1, y + 1, x0, y + 1])
    return polygons
  if kind == 'packed':
    found = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = found['counts'].decode()
  else:
    flat = np.concatenate([[False], mask.T.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff([0, *edges, mask.size]).tolist()
  return {'size': list(mask.shape), 'counts': counts}


def draw_ids(seed):
  """Blobs 0, 1, ..., -1 between them."""
  rng = np.random.default_rng(seed)
  y, x = np.indices((H, W))
  ids = np.full((H, W), -1)
  for i in range(7):
    cy, cx, r = rng.uniform(0, H), rng.uniform(0, W), rng.uniform(2, 8)
    ids[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = i
  return ids


def make_image(seed):
  rng = np.random.default_rng(seed)
  grey = rng.integers(0, 256, (H, W, 1))  # JPEG blurs colours
  return np.repeat(grey, 3, axis=2).astype(np.uint8)


def make_tree(
  root, num_train=4, num_val=2, scheme='entityseg_{}', low=True, factor=3
):
  """Returns {file name: id map}; photos are `factor` times as large."""
  root.mkdir(parents=True, exist_ok=True)
  truth = {}
  kinds = ('polygon', 'counts', 'packed')
  numbers = range(num_train + num_val)
  for native, own in (
    ('train', numbers[:num_train]),
    ('val', numbers[num_train:]),
  ):
    images, annotations = [], []
    for i in own:
      name = f'{FOLDERS[i % 3]}/{i // 3}.jpg'  # the same stems in each folder
      ids = draw_ids(i)
      photo = root / 'images' / name
      photo.parent.mkdir(parents=True, exist_ok=True)
      image = np.kron(make_image(i), np.ones((factor, factor, 1), 'u1'))
      Image.fromarray(image).save(photo, quality=95)
      images.append({'file_name': name, 'height': H, 'width': W, 'id': i})
      for k in np.unique(ids[ids >= 0]).tolist():
        found = segmentation(ids == k, kinds[(i + k) % 3])
        one = {'id': 100 * i + k, 'image_id': i, 'segmentation': found}
        annotations.append(one)
      truth[name] = ids
    path = root / (scheme.format(native) + ('_lr' if low else '') + '.json')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'images': images, 'annotations': annotations}))
  return truth


def change_json(root, change, native='train'):
  path = root / f'entityseg_{native}_lr.json'
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


run = functools.partial(reading.run, dataset='entityseg', split='native')


def same_regions(found, truth):
  names = np.unique(truth[truth >= 0])
  return np.array_equal(
    found, np.where(truth < 0, -1, np.searchsorted(names, truth))
  )


@pytest.mark.parametrize(
  'scheme',
  [
    'entityseg_{}',
    'annotations/entity_segmentation/entityv2_010203_entity_{}',
  ],
)
@pytest.mark.parametrize(('low', 'factor'), [(True, 3), (True, 1), (False, 1)])
def test_tree_reads_back_pixel_for_pixel(tmp_path, scheme, low, factor):
  truth = make_tree(tmp_path / 'in', 4, 2, scheme, low, factor)
  assert run(tmp_path / 'in', tmp_path / 'out', strict=True) == 0
  records = read_all(tmp_path / 'out')
  assert records.keys() == truth.keys()
  for i, (name, ids) in enumerate(truth.items()):
    assert same_regions(records[name]['id_maps'][0], ids)
    assert records[name]['image'].shape == (H, W, 3)
    if factor > 1:  # flat squares: their means are the source's pixels
      error = np.abs(records[name]['image'] - make_image(i).astype(int))
      assert error.mean() < 6


def test_low_resolution_and_its_own_photos_are_preferred(tmp_path):
  truth = make_tree(tmp_path, low=True, factor=1)
  (tmp_path / 'images').rename(tmp_path / 'images_lr')
  make_tree(tmp_path, low=False, factor=2)
  source = entityseg.open_source(tmp_path, 'native')
  items = [item for listed in source.splits.values() for item in listed]
  assert len(items) == len(truth)
  for item in items:
    assert item.photo == tmp_path / 'images_lr' / item.name
    assert '_lr.json' in str(item.labels[0])


def test_paper_split_holds_all_native_validation_images():
  train = [f'a/{i}.jpg' for i in range(96)]
  val = [f'b/{i}.jpg' for i in range(4)]
  parts = entityseg.paper_split(train, val)
  assert {s: len(names) for s, names in parts.items()} == {
    'train': 80,
    'val': 10,
    'test': 10,
  }
  assert set(val) <= set(parts['test'])
  found = sorted(name for names in parts.values() for name in names)
  assert found == sorted(train + val)
  assert parts == entityseg.paper_split(train[::-1], val)
  # what the official script draws for these names with seed 0
  assert parts['val'][:3] == ['a/20.jpg', 'a/25.jpg', 'a/34.jpg']


def test_small_entities_stay_on_top_and_later_ones_of_a_size(tmp_path):
  boxes = [(5, 5, 8, 8), (0, 0, W, H), (4, 4, 12, 12), (6, 6, 9, 9)]
  polygons = [[[a, b, c, b, c, d, a, d]] for a, b, c, d in boxes]

  def change(content):
    kept = [a for a in content['annotations'] if a['image_id'] != 0]
    own = [
      {'id': i, 'image_id': 0, 'segmentation': p}
      for i, p in enumerate(polygons)
    ]
    content['annotations'] = kept + own

  make_tree(tmp_path)
  change_json(tmp_path, change)
  source = entityseg.open_source(tmp_path, 'native')
  (id_map,) = source.load_id_maps(source.splits['train'][0])
  expected = np.full((H, W), 1)
  for i in (2, 0, 3):
    a, b, c, d = boxes[i]
    expected[b:d, a:c] = i
  np.testing.assert_array_equal(id_map, expected)


def test_unlabelled_pixels_become_an_entity_on_request(tmp_path):
  truth = make_tree(tmp_path / 'in')
  assert run(tmp_path / 'in', tmp_path / 'out', unlabelled='entity') == 0
  for name, record in read_all(tmp_path / 'out').items():
    ids = truth[name]
    found = record['id_maps'][0]
    assert found.min() == 0
    assert (found == found.max())[ids < 0].all()
    assert same_regions(np.where(ids < 0, -1, found), ids)


def test_five_thousand_entities_are_kept(tmp_path):
  make_tree(tmp_path / 'in', 1, 0, factor=10)
  size = [240, 360]

  def change(content):
    content['images'][0].update(height=size[0], width=size[1])
    content['annotations'] = [
      {'id': i, 'image_id': 0, 'segmentation': {'size': size, 'counts': counts}}
      for i in range(5000)
      if (counts := [17 * i, 17, size[0] * size[1] - 17 * i - 17])
    ]

  change_json(tmp_path / 'in', change)
  assert run(tmp_path / 'in', tmp_path / 'out') == 0
  (record,) = read_all(tmp_path / 'out').values()
  flat = record['id_maps'][0].T.ravel()
  expected = np.full(flat.size, -1)
  expected[: 5000 * 17] = np.repeat(np.arange(5000), 17)
  np.testing.assert_array_equal(flat, expected)


def of_first(change):
  """A change to the first annotation of the image that is spoilt."""
  return lambda root: change_json(root, lambda c: change(c['annotations'][0]))


def set_segmentation(value):
  return of_first(lambda a: a.update(segmentation=value))


def first_photo(size=None):
  """Cuts the first photo short, or makes another of some size of it."""

  def spoil(root):
    path = root / 'images' / FOLDERS[0] / '0.jpg'
    if size:
      Image.new('RGB', size).save(path)
    else:
      path.write_bytes(path.read_bytes()[:-200])

  return spoil


def unlink_photo(root):
  (root / 'images' / FOLDERS[0] / '0.jpg').unlink()


def without_height(root):
  change_json(root, lambda content: content['images'][0].pop('height'))


def without_entities(root):
  def change(content):
    kept = [a for a in content['annotations'] if a['image_id'] != 0]
    content['annotations'] = kept

  change_json(root, change)


FIRST, ANNOTATION = f'{FOLDERS[0]}/0.jpg', 'train_lr.json, image 0, annotation'
BAD = {
  'missing': (unlink_photo, f'image 0: left out (no photo {FIRST}'),
  'truncated': (first_photo(), f'{FIRST}: unreadable image'),
  'square': (
    first_photo((3 * H, 3 * H)),
    f'{FIRST} is {3 * H}x{3 * H}',
  ),
  'smaller': (first_photo((W // 2, H // 2)), f'is {W // 2}x{H // 2}'),
  'no height': (without_height, "image 0: left out (no 'height' in it)"),
  'no entities': (without_entities, 'an annotation with 0 ids'),
  'no mask': (of_first(lambda a: a.pop('segmentation')), ANNOTATION),
} | {
  name: (set_segmentation(value), ANNOTATION)
  for name, value in {
    'outside': [[0, 0, W + 30, 0, W + 30, 9]],
    'two points': [[0, 0, 5, 5]],
    'odd': [[0, 0, 5, 5, 3]],
    'sum': {'size': [H, W], 'counts': [5, 10, H * W]},
    'negative': {'size': [H, W], 'counts': [-5, H * W + 5]},
    'size': {'size': [W, H], 'counts': [0, H * W]},
    'packed': {'size': [H, W], 'counts': '52o~'},
    'packed sum': {'size': [H, W], 'counts': '523'},
  }.items()
}


@pytest.mark.parametrize(('spoil', 'named'), BAD.values(), ids=BAD.keys())
def test_bad_item_is_named_in_one_line_and_left_out(
  tmp_path, capfd, spoil, named
):
  truth = make_tree(tmp_path)
  spoil(tmp_path)
  assert run(tmp_path, tmp_path / 'out', strict=True) == 1
  errors = capfd.readouterr().err
  assert [named in line for line in errors.splitlines()].count(True) == 1
  assert '1 problem' in errors and 'Traceback' not in errors
  assert not list(tmp_path.rglob('*array_record*'))
  source = entityseg.open_source(tmp_path, 'native')
  assert sum(map(len, source.splits.values())) >= len(truth) - 1


@pytest.mark.parametrize(
  ('change', 'named'),
  [
    (lambda c: c.pop('annotations'), "no list 'annotations' in it"),
    (lambda c: c.pop('images'), "no list 'images' in it"),
    (lambda c: c['annotations'][1].pop('image_id'), "(no 'image_id' in it)"),
  ],
)
def test_json_without_a_key_is_an_error(tmp_path, change, named):
  make_tree(tmp_path)
  change_json(tmp_path, change)
  with pytest.raises(SourceError, match=re.escape(named)):
    entityseg.open_source(tmp_path, 'native')


def test_json_cut_short_and_missing_ones_are_errors(tmp_path):
  make_tree(tmp_path)
  val = tmp_path / 'entityseg_val_lr.json'
  val.write_bytes(val.read_bytes()[:100])
  with pytest.raises(SourceError, match=r'val_lr\.json: not whole JSON'):
    entityseg.open_source(tmp_path, 'native')
  val.unlink()
  with pytest.raises(SourceError, match='pass --split=native'):
    entityseg.open_source(tmp_path)
  assert list(entityseg.open_source(tmp_path, 'native').splits) == ['train']


def test_image_in_both_files_is_in_no_split(tmp_path):
  make_tree(tmp_path)
  name = f'{FOLDERS[0]}/0.jpg'
  change_json(
    tmp_path, lambda c: c['images'][0].update(file_name=name), native='val'
  )
  source = entityseg.open_source(tmp_path)
  assert name not in [i.name for v in source.splits.values() for i in v]
  assert [name in p or 'as well' in p for p in source.problems] == [True]


def test_rle_and_polygons_agree_on_random_masks():
  rng = np.random.default_rng(0)
  for i in range(60):
    height, width = rng.integers(1, 40, 2)
    mask = rng.random((height, width)) < (i % 5) / 4
    expected = np.flatnonzero(mask.T.ravel())
    for kind in ('counts', 'packed', 'polygon') if mask.any() else ('packed',):
      found = rle.decode(segmentation(mask, kind), height, width)
      np.testing.assert_array_equal(np.sort(found), expected)


def test_polygons_hold_the_pixels_that_pycocotools_gives_them():
  triangle = [[0, 0, 8, 0, 0, 8]]
  encoded = pycocotools.mask.frPyObjects(triangle, 10, 12)
  inside = pycocotools.mask.decode(encoded)[..., 0]
  found = rle.decode(triangle, 10, 12)
  np.testing.assert_array_equal(found, np.flatnonzero(inside.T))
  np.testing.assert_array_equal(found, rle.decode(triangle[0], 10, 12))
  united = rle.decode(
    [[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]], 9, 9
  )
  assert len(united) == len(set(united.tolist())) == 28
  clipped = rle.decode([[-1, -1, 13, -1, 13, 11, -1, 11]], 10, 12)
  assert len(clipped) == 120
