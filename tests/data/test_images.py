"""Photos of every kind become upright RGB of 8 bits, or an error in a line."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from bitseg_jax.data import images
from bitseg_jax.data.outside import SourceError

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 60, (24, 32, 3))
PHOTO[:, 16:] += 120
PHOTO[12:] += 60
PHOTO = PHOTO.astype(np.uint8)
GREY = PHOTO[..., 0]
PLANES = {'photometric': 'rgb', 'planarconfig': 'separate'}
DEEP = GREY.astype(np.uint16) * 16  # 12 bits in 16
FOUR = np.dstack([PHOTO, GREY]).astype(np.uint16) * 16


def tiff(pixels, **options):
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, pixels, **options)
  return buffer.getvalue()


def saved(pixels, kind, mode=None, **options):
  buffer = io.BytesIO()
  image = Image.fromarray(pixels)
  (image.convert(mode) if mode else image).save(buffer, kind, **options)
  return buffer.getvalue()


def by_opencv(pixels, suffix, *options):
  return cv2.imencode(suffix, pixels[..., [2, 1, 0]], options)[1].tobytes()


@pytest.mark.parametrize(
  ('source', 'expected'),
  [
    (tiff(DEEP), GREY),
    (tiff(PHOTO.astype(np.uint16) * 16), PHOTO),
    (tiff(65535 - DEEP, photometric='miniswhite'), GREY),
    (tiff(GREY.astype(np.int16) - 500), GREY),
    (tiff(GREY.astype(np.int32) * 9999), GREY),
    (tiff(GREY.astype(np.float32) / 255), GREY),
    (tiff(GREY / 255), GREY),
    (tiff(DEEP, compression='zlib'), GREY),
    (tiff(np.moveaxis(PHOTO, 2, 0).astype(np.uint16), **PLANES), PHOTO),
    (tiff(FOUR, photometric='rgb', extrasamples=[0]), PHOTO),  # infrared
    (by_opencv(PHOTO.astype(np.uint16) * 16, '.tif', 259, 5), PHOTO),  # LZW
    (by_opencv(PHOTO.astype(np.uint16) * 16, '.png'), PHOTO),
    (saved(DEEP, 'PNG'), GREY),
    (DEEP, GREY),
    (Image.fromarray(DEEP), GREY),
    (PHOTO / 255, PHOTO),
  ],
)
def test_deep_pixels_are_stretched_and_it_is_said(source, expected):
  notes = []
  found = images.read_photo(source, note=notes.append)
  assert found.dtype == np.uint8 and found.shape == (*GREY.shape, 3)
  flat = np.broadcast_to(expected.reshape(*GREY.shape, -1), found.shape)
  slope, offset = np.polyfit(flat.ravel(), found.ravel(), 1)
  assert 1 < slope < 1.15 and abs(offset) < 3  # black to white, and no more
  assert np.abs(slope * flat + offset - found).max() < 6
  (note,) = notes
  assert 'becomes black' in note and 'white' in note


@pytest.mark.parametrize(
  'source',
  [
    saved(PHOTO, 'PNG'),
    bytearray(saved(PHOTO, 'TIFF')),
    io.BytesIO(saved(PHOTO, 'BMP')),
    Image.fromarray(PHOTO),
    PHOTO,
    np.dstack([PHOTO, np.full(GREY.shape, 255, np.uint8)]),
  ],
)
def test_photos_come_from_anywhere(tmp_path, source):
  np.testing.assert_array_equal(images.read_photo(source), PHOTO)
  if isinstance(source, bytes):
    (tmp_path / 'a.png').write_bytes(source)
    for path in (tmp_path / 'a.png', str(tmp_path / 'a.png')):
      np.testing.assert_array_equal(images.read_photo(path), PHOTO)


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBX', 'CMYK', 'YCbCr', 'LA', '1'])
def test_pictures_of_every_mode_are_read(mode):
  picture = Image.fromarray(GREY).convert(mode)
  expected = np.asarray(picture.convert('RGB')).astype(int)
  assert np.abs(images.read_photo(picture) - expected).max() <= 3
  assert images.read_photo(GREY > 90).max() == 255
  large = np.kron(PHOTO, np.ones((4, 4, 1), np.uint8))
  found = images.read_photo(saved(large, 'HEIF', quality=95))
  assert np.abs(found.astype(int) - large).mean() < 8


def test_transparent_pixels_are_white_for_files_and_arrays():
  half = np.dstack([PHOTO, np.full(GREY.shape, 255, np.uint8)])
  half[:9, :, 3] = 0
  palette = Image.new('P', (2, 1), 0)
  palette.info['transparency'] = 0
  for source in (half, saved(half, 'PNG'), Image.fromarray(half), palette):
    notes = []
    found = images.read_photo(source, note=notes.append)
    assert (found[:9] == 255).all() and 'laid on white' in notes[0]


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'deep', 'LZW'])
def test_photos_are_turned_upright_unless_asked(orientation, kind):
  exif = Image.Exif()
  exif[0x0112] = orientation
  if kind == 'deep':
    tag = (0x0112, 3, 1, orientation, True)
    content = tiff(DEEP, extratags=[tag])
    raw = images.read_photo(tiff(DEEP))
  elif kind == 'LZW':
    content = saved(DEEP, 'TIFF', compression='tiff_lzw', exif=exif)
    raw = images.read_photo(tiff(DEEP))
  else:
    content = saved(PHOTO, kind, exif=exif)
    raw = images.read_photo(saved(PHOTO, kind))
  stored = Image.fromarray(raw)
  stored.getexif()[0x0112] = orientation
  photo = images.open_photo(content, 'apply', 0, print)
  upright = np.asarray(ImageOps.exif_transpose(stored))
  np.testing.assert_array_equal(photo.image, upright)
  assert photo.orientation == orientation
  assert photo.plain == (kind == 'JPEG' and orientation == 1)
  ignored = images.open_photo(content, 'ignore', 0, print)
  np.testing.assert_array_equal(ignored.image, raw)
  assert ignored.plain == (kind == 'JPEG')


def animation(kind):
  buffer = io.BytesIO()
  first, second = (Image.fromarray(p) for p in (GREY, 255 - GREY))
  first.save(buffer, kind, save_all=True, append_images=[second])
  return buffer.getvalue()


@pytest.mark.parametrize(
  'content',
  [
    animation('GIF'),
    animation('TIFF'),
    tiff(np.stack([GREY, 255 - GREY]).astype(np.uint16), photometric=1),
  ],
)
def test_one_page_is_read_and_it_is_said(content):
  notes = []
  first = images.read_photo(content, note=notes.append)
  assert '2 pages is read' in ''.join(notes)
  second = images.read_photo(content, page=1, note=notes.append)
  assert np.abs(first.astype(int) + second - 255).max() <= 12
  with pytest.raises(SourceError, match='has 2 pages, from 0, and no page 2'):
    images.read_photo(content, page=2)


def test_an_mpo_has_one_page(tmp_path):
  buffer = io.BytesIO()
  first, second = (Image.fromarray(p) for p in (GREY, 255 - GREY))
  first.save(buffer, 'MPO', save_all=True, append_images=[second])
  notes = []
  images.read_photo(buffer.getvalue(), note=notes.append)
  assert not notes
  with pytest.raises(SourceError, match='no page 1'):
    images.read_photo(buffer.getvalue(), page=1)


@pytest.mark.parametrize(
  ('source', 'reason'),
  [
    (tiff(FOUR, photometric='separated'), 'SEPARATED pixels'),
    (b'', 'empty file'),
    (b'Dear photo', 'not an image'),
    (b'II*\0' + b'\1' * 90, 'has 0 pages'),
    (tiff(DEEP)[:300], 'unreadable'),
    (saved(PHOTO, 'JPEG')[:-200], 'unreadable'),
    (np.full((4, 4), np.nan), 'no pixel is a finite number'),
    (PHOTO.transpose(2, 0, 1), r'this is uint8 \[3, 24, 32\]'),
    (np.zeros((0, 5), np.uint8), 'photo is'),
    (np.array([['a']]), 'photo is'),
    (None, 'photo is'),
    ('/nowhere.png', '/nowhere.png: cannot be read'),
  ],
)
def test_what_is_no_photo_is_refused_in_one_line(source, reason, capfd):
  with pytest.raises(SourceError, match=reason) as error:
    images.read_photo(source)
  assert '\n' not in str(error.value)
  assert capfd.readouterr().err == ''
