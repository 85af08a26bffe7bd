"""Resizing, padding, augmentation: exact where they can be."""

import numpy as np
import pytest

from bitseg_jax import IGNORE_ID
from bitseg_jax.data import transforms
from bitseg_jax.models import layers


@pytest.fixture
def photo():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (24, 36, 3), np.uint8)
  id_map = (np.arange(24)[:, None] // 6 * 10 + np.arange(36) // 9).astype('i4')
  id_map[:2] = -1
  return image, id_map


@pytest.mark.parametrize(
  ('size', 'expected'), [((300, 400), (96, 128)), ((7, 700), (1, 128))]
)
def test_longest_side(size, expected):
  assert transforms.fit_longest_side(*size, 128) == expected


def test_area_resize_is_the_mean_of_blocks(photo):
  image, _ = photo
  small = transforms.resize_image(image, (12, 12))
  blocks = image.reshape(12, 2, 12, 3, 3).mean((1, 3))
  np.testing.assert_allclose(small, blocks, atol=1)  # rounds twice


@pytest.mark.parametrize('dtype', [np.uint8, np.int64])
def test_ids_of_any_type_are_resized(dtype):
  ids = np.arange(6, dtype=dtype).reshape(2, 3)
  found = transforms.resize_ids(ids, (4, 6), (0, 0, 1, 2))
  assert found[0, 0] == 0 and (found[:, 3:] == IGNORE_ID).all()


def test_ids_survive_enlarging_and_shrinking(photo):
  _, id_map = photo
  large = transforms.resize_ids(id_map, (72, 108))
  np.testing.assert_array_equal(large, id_map.repeat(3, 0).repeat(3, 1))
  np.testing.assert_array_equal(transforms.resize_ids(large, (24, 36)), id_map)


def test_padding_goes_to_the_bottom_and_right(photo):
  image, id_map = photo
  padded_image, padded_ids = transforms.pad_to_square(image, id_map, 40)
  assert padded_image.shape == (40, 40, 3)
  np.testing.assert_array_equal(padded_image[:24, :36], image)
  np.testing.assert_array_equal(padded_ids[:24, :36], id_map)
  assert np.all(padded_ids[24:] == -1) and np.all(padded_ids[:, 36:] == -1)
  normal = layers.normalize_image(padded_image)
  assert np.abs(normal[24:]).max() < 0.01
  np.testing.assert_allclose(
    layers.normalize_image(np.full((1, 1, 3), 255, np.uint8))[0, 0],
    (1 - layers.IMAGE_MEAN) / layers.IMAGE_STD,
    rtol=1e-6,
  )


@pytest.mark.parametrize('kind', transforms.AUGMENTATIONS)
def test_augmentation_follows_its_rng_and_keeps_its_input(photo, kind):
  image, id_map = photo
  before = image.copy(), id_map.copy()
  draws = [
    transforms.augment(image, id_map, np.random.default_rng(seed), kind)
    for seed in [*range(20), 0]
  ]
  np.testing.assert_array_equal(image, before[0])
  np.testing.assert_array_equal(id_map, before[1])
  np.testing.assert_array_equal(draws[0][0], draws[-1][0])
  np.testing.assert_array_equal(draws[0][1], draws[-1][1])
  different = {new_image.tobytes() for new_image, _ in draws}
  assert len(different) == {'none': 1, 'flip': 2}.get(kind, len(different))
  if kind == 'full':
    assert len(different) > 8
  for new_image, new_ids in draws:
    assert new_image.dtype == np.uint8 and new_image.shape == image.shape
    assert new_ids.dtype == np.int32 and new_ids.shape == id_map.shape
    assert set(np.unique(new_ids)) <= set(np.unique(id_map))


def test_photo_and_ids_turn_together():
  id_map = np.zeros((41, 41), np.int32)
  id_map[5:12, 8:30] = 1
  image = np.repeat(id_map[..., None] * 255, 3, -1).astype(np.uint8)
  turned, ids = transforms.rotate(image, id_map, 17)
  inside = ids >= 0
  agree = (turned[..., 0] > 127) == (ids == 1)
  assert agree[inside].mean() > 0.98
  assert not inside.all()
  back = transforms.rotate(turned, ids, -17)[1]
  seen = back >= 0
  assert (back == id_map)[seen].mean() > 0.97


def test_half_a_turn_of_hue_is_the_complement():
  red = np.full((4, 4, 3), (200, 40, 40), np.uint8)
  turned = transforms._shift_hsv(red, np.array([90, 0, 0]))
  np.testing.assert_allclose(turned[0, 0], (40, 200, 200), atol=4)


def test_a_box_is_cut_out_of_photo_and_ids_alike(photo):
  image, id_map = photo
  box = 0.25, 0.5, 0.75, 1.0  # rows 6:18, columns 18:36
  cut = transforms.resize_image(image, (12, 18), box)
  np.testing.assert_array_equal(cut, image[6:18, 18:])
  cut = transforms.resize_ids(id_map, (12, 18), box)
  np.testing.assert_array_equal(cut, id_map[6:18, 18:])
  # A photo stored at half the size of its ids: the same place.
  half = transforms.resize_image(image[::2, ::2], (6, 9), box)
  np.testing.assert_array_equal(half, image[::2, ::2][3:9, 9:])


def test_a_box_beyond_the_photo_is_unlabelled_there(photo):
  image, id_map = photo
  box = -0.5, -0.25, 1.5, 1.75  # twice the photo
  wide = transforms.resize_image(image, (48, 72), box)
  ids = transforms.resize_ids(id_map, (48, 72), box)
  np.testing.assert_array_equal(wide[12:36, 9:45], image)
  np.testing.assert_array_equal(ids[12:36, 9:45], id_map)
  outside = np.ones((48, 72), bool)
  outside[12:36, 9:45] = False
  assert np.all(ids[outside] == -1)
  assert np.all(wide[outside] == transforms.PAD_COLOR)
  assert ids.max() == id_map.max()
  speck = -8.0, -8.0, 8.0, 8.0  # smaller than a pixel of the result
  assert transforms.resize_image(image, (1, 1), speck).shape == (1, 1, 3)


def test_random_boxes_keep_their_area_and_aspect():
  rng = np.random.default_rng(0)
  boxes = [transforms.random_box(rng, (0.3, 2.0), 1.5) for _ in range(300)]
  top, left, bottom, right = np.array(boxes).T
  area, ratio = (bottom - top) * (right - left), (right - left) / (bottom - top)
  assert 0.3 <= area.min() < 0.4 and 1.9 < area.max() <= 2
  assert 1 / 1.5 <= ratio.min() < 0.72 and 1.4 < ratio.max() <= 1.5
  for low, high in ((top, bottom), (left, right)):
    small = high - low <= 1
    assert np.all((low >= 0) & (high <= 1 + 1e-9) | ~small)
    assert np.all((low <= 0) & (high >= 1 - 1e-9) | small)
  state = rng.bit_generator.state
  assert transforms.random_box(rng, (1.0, 1), 1) == transforms.WHOLE
  assert rng.bit_generator.state == state  # off: the stream is as without
