"""Stored records: lazy id maps, photos decoded no larger than needed."""

import io
import pathlib
import tempfile

import numpy as np
import pytest
from PIL import Image

from bitseg_jax.data import transforms
from bitseg_jax.data.outside import SourceError
from bitseg_jax.data.prepared import splits, write
from bitseg_jax.data.source import Item, Source


def make_record(height, width, id_maps=()):
  waves = (
    np.sin(np.arange(width) / 40) * np.cos(np.arange(height) / 30)[:, None]
  )
  image = np.repeat((127 + 120 * waves)[..., None], 3, -1).astype(np.uint8)
  id_maps = id_maps or [np.zeros((height, width), np.int32)]
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'a.png'
    Image.fromarray(image).save(path)
    source = Source({}, lambda item: id_maps, [], [])
    record, _ = write.encode(source, Item('a', path, ('a label',)), 0)
  return {**record, 'name': b'a'}


@pytest.mark.parametrize('num_ids', [1, 3, 16, 255, 256, 300])
@pytest.mark.parametrize('ignored', [True, False])
def test_ids_come_back_whatever_the_png(num_ids, ignored):
  id_map = (np.arange(40 * 50) % num_ids).reshape(40, 50).astype(np.int32)
  if ignored:
    id_map[:3] = -1
  stored = make_record(40, 50, [id_map])
  (back,) = splits.decode(stored)['id_maps']
  assert back.dtype == np.int32
  np.testing.assert_array_equal(back, id_map)


def test_only_the_id_map_asked_for_is_decoded():
  id_maps = [np.full((8, 8), 0, np.int32), np.eye(8, dtype=np.int32)]
  stored = make_record(8, 8, id_maps)
  stored['id_maps'][0] = b'no PNG'
  lazy = splits.decode(stored)['id_maps']
  assert len(lazy) == 2
  np.testing.assert_array_equal(lazy[1], id_maps[1])
  with pytest.raises(OSError, match='cannot identify'):
    lazy[0]


@pytest.mark.parametrize(
  ('wanted', 'longest'), [(0, 1000), (500, 1000), (251, 1000), (250, 500),
                          (126, 500), (125, 250), (30, 125)]
)  # fmt: skip
def test_a_photo_is_decoded_at_twice_the_wanted_size_or_more(wanted, longest):
  stored = make_record(601, 1000)
  full = splits.decode(stored)['image']
  image = splits.decode(stored, wanted)['image']
  assert image.shape[1] == longest
  size = transforms.fit_longest_side(601, 1000, 40)
  small, exact = (transforms.resize_image(i, size) for i in (image, full))
  assert np.abs(small.astype(int) - exact).max() <= 12


def test_a_photo_too_long_for_a_jpeg_is_named(tmp_path):
  length = 65_501
  Image.new('RGB', (length, 1)).save(tmp_path / 'a.png')
  item = Item('a', tmp_path / 'a.png', ('a label',))
  ids = np.zeros((1, length), np.int32)
  source = Source({}, lambda item: [ids], [], [])
  with pytest.raises(SourceError, match=r'a\.png: no JPEG is so large'):
    write.encode(source, item, longest_side=0)
  shrunk, _ = write.encode(source, item, longest_side=512)
  assert splits.decode({**shrunk, 'name': b'a'})['image'].shape == (1, 512, 3)


def test_grey_jpegs_become_rgb():
  buffer = io.BytesIO()
  Image.new('L', (900, 600), 99).save(buffer, 'JPEG')
  stored = {'name': b'', 'image': buffer.getvalue(), 'id_maps': []}
  assert splits.decode(stored, 100)['image'].shape == (150, 225, 3)
  assert splits.decode(stored)['image'].shape == (600, 900, 3)
