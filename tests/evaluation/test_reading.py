"""Files of other methods: found by name, read, painted, refused."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from bitseg_jax import relabel
from bitseg_jax.app import polygons
from bitseg_jax.data import rle
from bitseg_jax.data.outside import SourceError
from bitseg_jax.evaluation import reading

IDS = np.array([[0, 0, 1, 1], [300, 300, 1, -1], [300, 300, 1, -1]])
SHAPE = IDS.shape


def write_png(path, ids=IDS):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray((ids + 1).astype(np.uint16)).save(path)


def run_lengths(mask):
  """Uncompressed run lengths of COCO, counted pixel by pixel."""
  counts, inside = [0], False
  for pixel in mask.T.ravel():
    if pixel != inside:
      counts.append(0)
      inside = pixel
    counts[-1] += 1
  return {'size': list(mask.shape), 'counts': counts}


def box(rows, columns, **entries):
  mask = np.zeros(SHAPE, bool)
  mask[rows, columns] = True
  return {'segmentation': run_lengths(mask), **entries}


def load(place, name='12', shape=SHAPE, form='any', order='score'):
  return reading.load(reading.find(place, [name], form)[name], shape, order)


@pytest.mark.parametrize(
  'file',
  [
    *('12_labels.png', '12.png', '12.npy', '12.PNG', '12_masks.tif'),
    *('12.TIFF', '12_cp_masks.png', '12_mask.png'),
  ],
)
def test_labels_are_read_as_they_were_written(tmp_path, file):
  if file.endswith('.npy'):
    np.save(tmp_path / file, IDS)
  else:
    write_png(tmp_path / file)
    write_png(tmp_path / '12_samples.png', IDS[:2])  # a picture for people
  (found,) = load(tmp_path)
  np.testing.assert_array_equal(found, IDS)


def test_eight_bits_and_colours_are_labels_too(tmp_path):
  ids = np.array([[0, 1], [200, 255]])
  colours = np.stack([ids % 256, ids // 256 + 2, 0 * ids], axis=-1)
  for pixels, expected in (ids, ids - 1), (colours, ids + 511):
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(load(tmp_path, 'a', (2, 2))[0], expected)


@pytest.mark.parametrize('dtype', ['u1', 'u2', 'i4', 'u8'])
def test_void_in_arrays_of_any_type_is_no_segment(tmp_path, dtype):
  np.save(tmp_path / 'a.npy', np.array([[0, 1], [200, 255]], dtype))
  parts = reading.find(tmp_path, ['a'])['a']
  (found,) = reading.load(parts, (2, 2), ignore=[255])
  assert found.tolist() == [[0, 1], [200, -1]]


@pytest.mark.parametrize('way', ['from 0', 'from 1', 'array'])
def test_several_samples(tmp_path, way):
  samples = [np.roll(IDS, k, axis=1) for k in range(11)]
  for k, sample in enumerate(samples):
    if way.startswith('from'):
      write_png(tmp_path / f'12_{k + int(way[-1])}.png', sample)
  if way == 'array':
    np.save(tmp_path / '12.npy', samples)
  np.testing.assert_array_equal(load(tmp_path), samples)


@pytest.mark.parametrize('file', ['a/12.jpg.png', 'a/12.png', '12.png'])
def test_names_may_lose_suffix_and_folders(tmp_path, file):
  write_png(tmp_path / file)
  assert list(reading.find(tmp_path, ['a/12.jpg', 'b/x'])) == ['a/12.jpg']


def test_images_whose_names_begin_alike_are_told_apart(tmp_path):
  """As phones and exports number them: IMG, IMG_1, IMG_7."""
  files = {name: tmp_path / f'{name}.png' for name in ('IMG', 'IMG_1', 'IMG_7')}
  for path in files.values():
    write_png(path)
  for names in list(files), ['IMG_7', 'IMG']:
    expected = {name: [files[name]] for name in names}
    assert reading.find(tmp_path, names) == expected
  files['IMG'].unlink()
  assert list(reading.find(tmp_path, ['IMG', 'IMG_1'])) == ['IMG_1']


def test_two_predictions_need_a_choice(tmp_path):
  write_png(tmp_path / '12.png')
  (tmp_path / '12.json').write_text('[]')
  np.testing.assert_array_equal(load(tmp_path)[0], IDS)
  assert (load(tmp_path, form='masks')[0] == -1).all()
  write_png(tmp_path / '13_0.png')
  for other in '12_labels.png', '12.tif', '12_masks.PNG', '13_0.tif':
    write_png(tmp_path / other)
    with pytest.raises(SourceError, match=f'both there for image {other[:2]}'):
      load(tmp_path, other[:2])
    (tmp_path / other).unlink()


def test_samples_beside_labels(tmp_path):
  samples = [np.roll(IDS, k, axis=1) for k in range(3)]
  write_png(tmp_path / '12_labels.png')
  for k, sample in enumerate(samples, 1):
    write_png(tmp_path / f'12_sample_{k}.png', sample)
  np.testing.assert_array_equal(load(tmp_path), [IDS])
  np.testing.assert_array_equal(load(tmp_path, form='samples'), samples)


MASKS = [
  box(slice(0, 3), slice(0, 3), score=0.5, image_id=12),
  box(slice(1, 3), slice(1, 4), score=0.9, image_id=12),
  box(slice(2, 3), slice(0, 2), score=0.5, image_id=12),
]


@pytest.mark.parametrize(
  'order, expected',
  [
    ('score', [[0, 0, 0, -1], [0, 1, 1, 1], [0, 1, 1, 1]]),
    ('area', [[0, 0, 0, -1], [0, 1, 1, 1], [2, 2, 1, 1]]),
  ],
)
@pytest.mark.parametrize('way', ['list', 'SAM', 'results'])
def test_masks_are_painted_in_order(tmp_path, order, expected, way):
  path, masks = tmp_path / '000012.json', MASKS
  if way == 'SAM':
    renamed = [{**m, 'predicted_iou': m['score']} for m in MASKS]
    for mask in renamed:
      del mask['score']
    masks = {'annotations': renamed}
  if way == 'results':
    masks = [*MASKS, box(0, 0, score=1, file_name='x/13.jpg')]
  path.write_text(json.dumps(masks))
  place = path if way == 'results' else tmp_path
  (found,) = load(place, '000012', order=order)
  assert found.tolist() == expected
  if way == 'results':
    names = ['000012', 'x/13']
    assert list(reading.find(path, [*names, '14'])) == names


def test_other_sizes_are_resized_by_nearest_neighbour(tmp_path):
  write_png(tmp_path / '12.png')
  (found,) = load(tmp_path, shape=(9, 12))
  np.testing.assert_array_equal(found, IDS.repeat(3, 0).repeat(3, 1))
  write_png(tmp_path / '12.png', IDS.repeat(10, 0).repeat(10, 1))
  np.testing.assert_array_equal(load(tmp_path)[0], IDS)


def lengths(size, counts, **entries):
  return {'segmentation': {'size': size, 'counts': counts}, **entries}


SHORT = lengths([3, 4], [5], score=1)
OUTSIDE = {'segmentation': [[0, 0, 9, 0, 1, 1]], 'score': 1}


@pytest.mark.parametrize(
  'content, message',
  [
    ('.png none', 'unreadable image'),
    ('.npy none', r'not a whole \.npy'),
    (IDS / 2, 'ids that are not whole'),
    (IDS - 1, 'ids from -2 to'),
    (IDS + 2**40, 'ids from'),
    (np.array([{}]), 'not a whole'),
    (IDS[:1], 'is 4x1 but its annotation is 4x3'),
    ('.json [', 'not whole JSON'),
    ('.json [{"score": NaN}]', 'not whole JSON'),
    ({'a': 1}, 'should be a list'),
    ([MASKS[0], MASKS[1] | {'score': 77}], r'mask 1 \(has the score inf'),
    ([MASKS[0] | {'score': True}], r'mask 0 \(has the score'),
    ([lengths([10**6] * 2, [10**12])], r'mask 0 \(of height 10{6} and'),
    ([lengths([3, 4000], [12000], score=1)], 'is 4000x3 but'),
    ([{'score': 1}], r"mask 0 \(has no 'segmentation'"),
    ([MASKS[0], box(0, 0)], r'mask 1 \(has the score None.*--order=area'),
    ([MASKS[0], SHORT], r'mask 1 \(run lengths that are wrong'),
    ([MASKS[0], OUTSIDE], r'mask 1 \(a polygon from .* lies outside'),
  ],
)
def test_bad_files_are_named_in_one_line(tmp_path, content, message):
  kind = '.npy' if isinstance(content, np.ndarray) else '.json'
  if kind == '.npy':
    np.save(tmp_path / '12.npy', content)
  else:
    text = json.dumps(content).replace('77', '1e999')  # read as infinite
    if isinstance(content, str):
      kind, _, text = content.partition(' ')
    (tmp_path / f'12{kind}').write_text(text)
  with pytest.raises(SourceError, match=rf'12\{kind}: {message}') as error:
    load(tmp_path)
  assert '\n' not in str(error.value)


def test_masks_of_coco_and_labelme_are_read(tmp_path):
  """Polygons and run lengths of instances, in upper case, and labelme's."""
  polygon = [0, 0, 2, 0, 2, 3, 0, 3]  # the left half
  image = {'id': 1, 'file_name': 'a\\12.jpg', 'height': 3, 'width': 4}
  entry = {'image_id': 1, 'iscrowd': 0, 'category_id': 1}
  masks = [entry | {'segmentation': [polygon]}, entry | box(0, slice(0, 4))]
  path = tmp_path / 'instances.JSON'
  path.write_text(json.dumps({'images': [image], 'annotations': masks}))
  (ids,) = load(path, 'a/12')
  # Without scores, the smaller one is on top.
  assert ids.tolist() == [[1] * 4, [0, 0, -1, -1], [0, 0, -1, -1]]
  points = (10 * np.reshape(polygon, (-1, 2))).tolist()
  shape = {'label': 'a', 'points': points, 'shape_type': 'polygon'}
  labelme = {'shapes': [shape], 'imageHeight': 30, 'imageWidth': 40}
  (tmp_path / '12.json').write_text(json.dumps(labelme))
  (ids,) = load(tmp_path)
  assert ids[:, 0].tolist() == [0] * 3 and ids[:, 3].tolist() == [-1] * 3


@pytest.mark.parametrize('kind', ['rle', 'coco', 'labelme', 'tif'])
def test_what_predict_writes_can_be_scored(tmp_path, kind):
  noise = np.random.default_rng(0).standard_normal((5, 40, 50))
  smooth = ndimage.gaussian_filter(noise, (0, 3, 3))
  ids = relabel.compact(smooth.argmax(axis=0))[0]
  place = tmp_path / 'a.json'
  if kind == 'tif':
    tifffile.imwrite(tmp_path / 'a_labels.TIF', (ids + 1).astype(np.uint32))
    place = tmp_path
  elif kind == 'labelme':
    place.write_text(json.dumps(polygons.labelme(ids, 'a')))
    place = tmp_path
  else:
    of = (rle.encode if kind == 'rle' else polygons.coco)(ids)
    masks = [{'image_id': 7, 'segmentation': mask, 'score': 1} for mask in of]
    image = {'id': 7, 'file_name': 'b/a.jpg', 'height': 40, 'width': 50}
    place.write_text(json.dumps({'images': [image], 'annotations': masks}))
  (found,) = load(place, 'b/a', ids.shape)
  np.testing.assert_array_equal(found, ids)


def test_an_image_without_masks_has_none(tmp_path):
  path = tmp_path / 'all.json'
  image = {'id': 1, 'file_name': '12.jpg'}
  path.write_text(json.dumps({'images': [image], 'annotations': []}))
  assert (load(path) == np.full((1, 3, 4), -1)).all()


ENTRY = {'image_id': 1, 'file_name': '12.png', 'segments_info': []}
TWINS = [{'id': i, 'file_name': f'1.{s}'} for i, s in enumerate(['jpg', 'png'])]


@pytest.mark.parametrize(
  'content, names, message',
  [
    ([box(0, 0, score=1)], ['12'], "no 'file_name' in it"),
    ({'annotations': [ENTRY]}, ['12'], 'give the folder of its PNGs'),
    (
      {'images': TWINS, 'annotations': []},
      ['1'],
      'two images are called',
    ),
    (
      [box(0, 0, score=1, file_name='1.jpg')],
      ['a/1', 'b/1'],
      'of image a/1 and of image b/1',
    ),
    (None, ['a/1', 'b/1'], 'of image a/1 and of image b/1'),  # a PNG
  ],
)
def test_files_of_unclear_images_are_refused(tmp_path, content, names, message):
  path = tmp_path / 'all.json'
  if content is None:
    write_png(tmp_path / '1.png')
    path = tmp_path
  else:
    path.write_text(json.dumps(content))
  with pytest.raises(SourceError, match=message):
    reading.find(path, names)
  with pytest.raises(FileNotFoundError, match='no such directory'):
    reading.find(tmp_path / 'none', names)


def test_results_that_number_their_images_are_found_by_name(tmp_path):
  """As COCO's files, and rle.json of predict, number them."""
  path = tmp_path / 'rle.json'
  names = ['12', '2', '1']  # whose own numbers are others
  images = [{'id': i, 'file_name': f'{n}.jpg'} for i, n in enumerate(names, 1)]
  masks = [box(0, i, image_id=i + 1, score=1) for i in range(3)]
  path.write_text(json.dumps({'images': images, 'annotations': masks}))
  found = reading.find(path, names)
  for i, name in enumerate(names):
    (ids,) = reading.load(found[name], SHAPE)
    assert (ids[0] == 0).nonzero()[0].tolist() == [i]


@pytest.mark.parametrize('folder', ['/home/me/', 'C:\\me\\', 'images/'])
def test_folders_that_other_programs_put_before_names_do_not_matter(
  tmp_path, folder
):
  path = tmp_path / 'coco.json'
  names = '12', '13'
  masks = [box(0, 0, file_name=f'{folder}{name}.JPG') for name in names]
  path.write_text(json.dumps(masks))
  assert list(reading.find(path, [*names, '14'])) == list(names)
  masks += [box(0, 0, file_name='other/12.jpg')]  # which of both?
  path.write_text(json.dumps(masks))
  assert list(reading.find(path, names)) == ['13']
