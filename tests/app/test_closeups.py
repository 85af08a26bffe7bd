"""Close-ups: what the model sees of photos, and their answers."""

import numpy as np
import pytest

from bitseg_jax.app import closeups
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.segmenter import Segmenter


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


@pytest.mark.parametrize('shape', [(1, 1), (50, 70), (3, 90)])
def test_close_ups_cover_the_photo(shape):
  seen = np.zeros(shape, int)
  for top, left, bottom, right in closeups.boxes(shape):
    assert 0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]
    seen[top:bottom, left:right] += 1
  assert seen.min() > 0


def test_close_ups_join_the_consensus_alone(model, draw_photo):
  photo = draw_photo(3, 64, 48)
  plain = model.segment(photo, 3, seed=1, closeups=0)
  closer = model.segment(photo, 3, seed=1, closeups=2)
  assert (closer.id_map != plain.id_map).any()
  assert closer.num_samples == 3
  np.testing.assert_array_equal(closer.samples, plain.samples)
  again = model.segment_batch(
    [photo, photo[:20]], AnswerOptions(num_samples=3, seed=1)
  )[0]  # two are the default
  np.testing.assert_array_equal(again.id_map, closer.id_map)
  # What the model sees whole has no more detail.
  drawn = []
  model.segment(draw_photo(3, 16, 12), 3, progress=drawn.append)
  model.segment(photo, 3, follow_edges=False, progress=drawn.append)
  assert drawn[-1] == (3, 3) and (3, 3) in drawn[:-1]


def test_what_is_known_holds_with_close_ups_and_without_specks(
  model, draw_photo
):
  photo = draw_photo(4, 64, 48)
  known = np.full((64, 48), -1)
  known[2, 2] = known[60, 40] = 7
  known[30, 20] = 3
  found = model.segment(photo, 2, known=known, closeups=1, min_area=0.2)
  assert found.id_map[2, 2] == found.id_map[60, 40] != found.id_map[30, 20]
  specks = model.segment(photo, 2, min_area=0.2)
  assert len(specks.confidence) == specks.id_map.max() + 1


@pytest.mark.parametrize(
  ('settings', 'said'),
  [
    ({'closeups': -1}, 'closeups is -1'),
    ({'closeups': 1.5}, 'closeups is 1.5'),
    ({'min_area': float('nan')}, 'min_area is nan'),
    ({'min_area': 0.7}, 'min_area is 0.7'),
  ],
)
def test_bad_settings_are_named(model, draw_photo, settings, said):
  with pytest.raises(ValueError, match=said):
    model.segment(draw_photo(0, 20, 20), **settings)


@pytest.mark.parametrize('shape', [(2, 400), (400, 2), (1, 90)])
def test_close_ups_of_a_line_of_pixels(model, draw_photo, shape):
  photo = draw_photo(0, *shape)
  assert model.segment(photo, closeups=1).id_map.shape == shape
