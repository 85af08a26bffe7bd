"""Id maps come back from every file that people keep them in."""

import base64
import io
import json

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

from bitseg_jax.data import labels
from bitseg_jax.data.outside import SourceError

IDS = np.kron([[0, 1], [2, 3]], np.ones((8, 8), int))


def save(path, ids, **options):
  if path.suffix == '.npy':
    np.save(path, ids)
  elif path.suffix == '.tif':
    tifffile.imwrite(path, ids, **options)
  else:
    Image.fromarray(ids).save(path)


def saved(path, pixels, *kind, **options):
  Image.fromarray(pixels).save(path, *kind, **options)


@pytest.mark.parametrize(
  ('suffix', 'dtype', 'factor'),
  [
    ('.png', np.uint8, 1),
    ('.png', np.uint16, 20_000),
    ('.tif', np.uint8, 1),
    ('.tif', np.uint16, 20_000),
    ('.tif', np.uint32, 70_001),
    ('.tif', np.float32, 3),
    ('.npy', np.int64, 70_001),
    ('.npy', np.float64, 3),
  ],
)
def test_ids_of_every_width_are_read(tmp_path, suffix, dtype, factor):
  path = tmp_path / f'a{suffix}'
  save(path, (IDS * factor).astype(dtype))
  found = labels.read_label(path)
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, IDS * factor)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_colours_are_ids_of_24_bits(tmp_path, suffix):
  ids = IDS * 70_001
  colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
  save(tmp_path / f'a{suffix}', colours.astype(np.uint8))
  np.testing.assert_array_equal(labels.read_label(tmp_path / f'a{suffix}'), ids)
  opaque = np.dstack([colours, np.full(ids.shape, 255)]).astype(np.uint8)
  save(tmp_path / 'b.png', opaque)
  np.testing.assert_array_equal(labels.read_label(tmp_path / 'b.png'), ids)


def test_tiffs_with_white_as_0_and_negative_numbers_keep_their_ids(tmp_path):
  for dtype in (np.uint8, np.uint16):
    save(tmp_path / 'a.tif', IDS.astype(dtype), photometric='miniswhite')
    np.testing.assert_array_equal(labels.read_label(tmp_path / 'a.tif'), IDS)
  for suffix in ('.npy', '.tif'):  # where 0 is an id
    save(tmp_path / f'a{suffix}', (IDS - 1).astype(np.int16))
    found = labels.read_label(tmp_path / f'a{suffix}')
    np.testing.assert_array_equal(found, IDS)


def test_what_is_ignored_is_unlabelled_and_255_is_asked_about(tmp_path):
  void = np.where(IDS == 2, 255, IDS).astype(np.uint8)
  save(tmp_path / 'a.png', void)
  notes = []
  np.testing.assert_array_equal(
    labels.read_label(tmp_path / 'a.png', note=notes.append), void
  )
  assert '255 is taken for an entity' in notes[0] and '--ignore=255' in notes[0]
  notes.clear()
  found = labels.read_label(tmp_path / 'a.png', (255,), note=notes.append)
  np.testing.assert_array_equal(found, np.where(IDS == 2, 0, IDS))
  save(tmp_path / 'b.png', (255 * (IDS > 1)).astype(np.uint8))  # a mask
  labels.read_label(tmp_path / 'b.png', note=notes.append)
  many = np.arange(256).reshape(16, 16).astype(np.uint8)
  save(tmp_path / 'c.png', many)
  labels.read_label(tmp_path / 'c.png', note=notes.append)
  assert not notes


def test_a_palette_saved_again_is_looked_up(tmp_path):
  colours = np.array([(0, 0, 0), (200, 9, 9), (9, 200, 9), (9, 9, 200)], 'u1')
  coloured = Image.fromarray(colours[IDS]).quantize(8)
  assert any(coloured.getpalette()[:3])
  coloured.save(tmp_path / 'a.png')
  notes = []
  found = labels.read_label(tmp_path / 'a.png', note=notes.append)
  np.testing.assert_array_equal(
    found, colours.astype(int)[IDS] @ [1, 256, 65536]
  )
  assert 'first colour is not black' in notes[0]
  numbered = Image.fromarray(IDS.astype(np.uint8)).convert('P')
  numbered.putdata(IDS.ravel().tolist())
  numbered.putpalette(colours.tobytes())
  numbered.save(tmp_path / 'b.png')
  np.testing.assert_array_equal(labels.read_label(tmp_path / 'b.png'), IDS)
  found = labels.read_label(tmp_path / 'b.png', colours=True)
  np.testing.assert_array_equal(
    found, colours.astype(int)[IDS] @ [1, 256, 2**16]
  )


def test_smoothed_edges_are_told(tmp_path):
  colours = np.array([(0, 0, 0), (200, 9, 9), (9, 200, 9), (9, 9, 200)], 'u1')
  drawn = Image.new('RGB', (640, 640))
  draw = ImageDraw.Draw(drawn)
  for i, colour in enumerate(colours[1:]):
    draw.ellipse([40 + 150 * i, 60, 330 + 150 * i, 560], tuple(colour))
  drawn.save(tmp_path / 'sharp.png')
  smooth = drawn.resize((160, 160), Image.Resampling.BOX)
  smooth.save(tmp_path / 'smooth.png')
  noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  save(tmp_path / 'many.png', np.kron(noise, np.ones((4, 4, 1), np.uint8)))
  told = {}
  for name in ('sharp', 'smooth', 'many'):
    told[name] = []
    labels.read_label(tmp_path / f'{name}.png', note=told[name].append)
  assert not told['sharp'] and not told['many']
  assert 'smoothed' in told['smooth'][0]


def labelme(path, *shapes, size=(16, 20)):
  content = {
    'version': '5.5.0',
    'shapes': [
      {'label': 'x', 'group_id': None, 'shape_type': 'polygon', **shape}
      for shape in shapes
    ],
    'imagePath': 'a.jpg',
    'imageData': None,
    'imageHeight': size[0],
    'imageWidth': size[1],
  }
  path.write_text(json.dumps(content))
  return path


def test_shapes_of_labelme_are_painted_in_their_order(tmp_path):
  mask = io.BytesIO()
  Image.fromarray(np.eye(3) > 0).save(mask, 'PNG')
  square = [[1, 1], [8, 1], [8, 8], [1, 8]]
  path = labelme(
    tmp_path / 'a.json',
    {'points': square},
    {'points': [[4, 4], [10, 10]], 'shape_type': 'rectangle'},
    {'points': [[12, 1], [14, 3]], 'shape_type': 'rectangle', 'group_id': 7},
    {'points': [[16, 1], [18, 3]], 'shape_type': 'rectangle', 'group_id': 7},
    {'points': [[15, 11], [15, 13]], 'shape_type': 'circle'},
    {
      'points': [[1, 12], [3, 14]],
      'shape_type': 'mask',
      'mask': base64.b64encode(mask.getvalue()).decode(),
    },
    {'points': [[0, 0], [19, 15]], 'shape_type': 'line'},
    {
      'points': [[2, 2], [3, 3]],
      'shape_type': 'rectangle',
      'label': '__ignore__',
    },
  )
  expected = np.zeros((16, 20), int)
  expected[1:9, 1:9] = 1
  expected[4:11, 4:11] = 2
  expected[1:4, 12:15] = expected[1:4, 16:19] = 3
  circle = np.hypot(*(np.indices((16, 20)) - np.array([11, 15])[:, None, None]))
  expected[12:15, 1:4] = np.eye(3) * 5
  expected[2:4, 2:4] = 0
  notes = []
  found = labels.read_label(path, note=notes.append)
  assert (found[circle < 1.9] == 4).all() and (found == 4).sum() < 25
  np.testing.assert_array_equal(np.where(found == 4, 0, found), expected)
  assert "left out: ['line']" in notes[0]


SIZE = {'imageHeight': 9, 'imageWidth': 9}
FAR = {'points': [[1, 2], [1e9, 2]], 'shape_type': 'circle', 'label': 'x'}


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    ({'images': []}, 'coco_instances'),
    ([], "no list 'shapes'"),
    ({'shapes': []}, "no 'imageHeight' in it"),
    ({'shapes': [], 'imageHeight': 10**6, 'imageWidth': 10**6}, 'of height'),
    ({'shapes': [3], **SIZE}, r'shapes\[0\]'),
    ({'shapes': [{'points': [[1, 2]], 'label': 'x'}], **SIZE}, 'of 1 points'),
    ({'shapes': [FAR], **SIZE}, 'far outside'),
  ],
)
def test_json_of_others_is_refused_in_one_line(tmp_path, content, reason):
  (tmp_path / 'a.json').write_text(json.dumps(content))
  with pytest.raises(SourceError, match=reason):
    labels.read_label(tmp_path / 'a.json')


EIGHT, DEEP = IDS.astype(np.uint8), np.stack([IDS] * 2).astype(np.uint16)


@pytest.mark.parametrize(
  ('name', 'write', 'reason'),
  [
    ('a.png', lambda f: saved(f, EIGHT, 'JPEG'), 'a JPEG file'),
    (
      'a.png',
      lambda f: saved(f, np.ones((4, 4, 4), 'u1'), 'PNG'),
      'mode RGBA holds no ids',
    ),
    (
      'a.png',
      lambda f: cv2.imwrite(str(f), np.dstack([DEEP[0]] * 3)),
      '16 bits',
    ),
    ('a.tif', lambda f: saved(f, IDS.astype('f4') / 2, 'TIFF'), 'not whole'),
    ('a.tif', lambda f: saved(f, EIGHT, compression='jpeg'), 'a JPEG file'),
    ('a.tif', lambda f: tifffile.imwrite(f, DEEP), 'several pages'),
  ],
)
def test_files_that_hold_no_ids_are_refused(tmp_path, name, write, reason):
  write(tmp_path / name)
  with pytest.raises(SourceError, match=reason):
    labels.read_label(tmp_path / name)


def test_numbers_mean_what_the_file_says_where_some_are_negative(tmp_path):
  ids = np.array([[-1, 0, 1], [254, 255, 255]], np.int16)
  tifffile.imwrite(tmp_path / 'a.tif', ids)
  found = labels.read_label(tmp_path / 'a.tif', (255,))
  np.testing.assert_array_equal(found, [[0, 1, 2], [255, 0, 0]])
