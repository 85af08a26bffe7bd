"""A segmentation made to agree with what is known."""

import numpy as np
import pytest

from bitseg_jax import relabel
from bitseg_jax.evaluation import obeying


def id_maps(seed, count, size=(20, 30)):
  """Maps of squares of 5 pixels, of 5 entities."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 5, (count, size[0] // 5, size[1] // 5))
  return small.repeat(5, 1).repeat(5, 2).astype(np.int32)


def marks(true, count):
  known = np.full(true.shape, -1, np.int32)
  places = np.random.default_rng(0).permutation(true.size)[:count]
  known.ravel()[places] = true.ravel()[places]
  return known


def flat(id_map):
  """A photo without edges."""
  return np.zeros((*id_map.shape, 3), np.uint8)


@pytest.mark.parametrize('count', [1, 2, 7, 100, 600])
def test_the_result_agrees_with_what_is_known(count):
  true, pred = id_maps(count, 2)
  known = marks(true, count)
  result = obeying.obey(pred, known, flat(pred))
  said = known >= 0
  np.testing.assert_array_equal(
    relabel.by_first_appearance(result[said]),
    relabel.by_first_appearance(known[said]),
  )
  assert len(np.unique(result)) == result.max() + 1
  # Other names for the known entities and the segments change nothing.
  names = np.random.default_rng(0).permutation(50).astype(np.int32)
  renamed = obeying.obey(
    names[pred], np.where(said, names[known], -1), flat(pred)
  )
  np.testing.assert_array_equal(
    relabel.by_first_appearance(renamed), relabel.by_first_appearance(result)
  )


def test_nothing_known_and_all_known():
  true, pred = id_maps(1, 2)
  nothing = np.full(pred.shape, -1, np.int32)
  same = relabel.by_first_appearance
  np.testing.assert_array_equal(
    same(obeying.obey(pred, nothing, flat(pred))), same(pred)
  )
  np.testing.assert_array_equal(
    same(obeying.obey(pred, true, flat(pred))), same(true)
  )


def test_a_segment_is_divided_along_an_edge_of_the_photo():
  pred, known = np.zeros((24, 60), np.int32), np.full((24, 60), -1, np.int32)
  known[4, 2], known[20, 57] = 0, 1
  halved = obeying.obey(pred, known, flat(pred))
  assert (halved == halved[4, 2]).sum() == pytest.approx(pred.size / 2, rel=0.1)
  photo = np.full((24, 60, 3), 90, np.uint8)
  photo[:, 44:] = 160
  found = obeying.obey(pred, known, photo)
  columns = np.indices(pred.shape)[1]
  away = abs(columns - 44) > 2
  np.testing.assert_array_equal(
    (found == found[20, 57])[away], (columns >= 44)[away]
  )


def test_large_photos_are_divided_on_a_small_copy():
  pred, known = np.zeros((600, 900), np.int32), np.full((600, 900), -1)
  known[300, 10], known[300, 11], known[300, 890] = 0, 1, 2
  found = obeying.obey(pred, known, np.zeros((600, 900, 3), np.uint8))
  # Both marks of one cell of the copy are as said, the rest is the second's.
  assert len(np.unique(found)) == 3
  border = (found == found[300, 890]).argmax(axis=1)
  assert abs(border - 450).max() < 8


def saucer():
  """A white disc on a brown table, all of it one segment."""
  rows, columns = np.indices((60, 90))
  disc = (rows - 30) ** 2 + (columns - 50) ** 2 < 15**2
  photo = np.where(disc[..., None], 230, (120, 80, 50)).astype(np.uint8)
  cells = rows // 6 * 15 + columns // 6
  pieces = relabel.compact(2 * cells + disc)[0]
  return disc, photo, pieces, np.zeros(disc.shape, np.int32)


def test_a_click_on_a_saucer_leaves_the_table():
  """It had taken the table, too: 42.9% of a photo."""
  disc, photo, pieces, pred = saucer()
  known = np.full(disc.shape, -1)
  known[30, 50] = 0
  found = obeying.obey(pred, known, photo, pieces)
  np.testing.assert_array_equal(found == found[30, 50], disc)
  # A click on the table leaves the saucer.
  known[30, 50], known[5, 5] = -1, 0
  found = obeying.obey(pred, known, photo, pieces)
  np.testing.assert_array_equal(found == found[5, 5], ~disc)
  # Both are one entity if one says so, and small segments stay whole.
  known[30, 50] = 0
  assert obeying.obey(pred, known, photo, pieces).max() == 0
  photo[:] = 200
  known[30, 50] = -1
  assert obeying.obey(pred, known, photo, pieces).max() == 0


def test_no_known_pixel_is_lost_where_cells_have_room():
  known = np.full((40, 60), -1, np.int32)
  known[3, 7], known[39, 59], known[20, 20:24] = 0, 1, 2
  known[20, 20] = 1  # not the last one in its cell
  small = obeying.shrink(known, (10, 15))
  assert small[0, 1] == 0
  assert small[9, 14] == 1
  assert small[5, 5] == 2
  assert (small >= 0).sum() == 3
  np.testing.assert_array_equal(obeying.shrink(known, known.shape), known)
