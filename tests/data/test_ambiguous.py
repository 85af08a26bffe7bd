"""Ambiguous scenes: seeded, and annotated as often as the modes say."""

import numpy as np
import pytest

from bitseg_jax.data.ambiguous import AmbiguousScenes
from bitseg_jax.metrics import uncertainty


def test_scene_depends_on_seed_and_index_alone():
  few, many = AmbiguousScenes(3, 16, 2, 7), AmbiguousScenes(90, 16, 2, 7)
  for i in range(3):
    np.testing.assert_array_equal(few[i]['image'], many[i]['image'])
    np.testing.assert_array_equal(few[i]['id_maps'], many[i]['id_maps'])
  other = AmbiguousScenes(3, 16, 2, seed=8)
  assert (few[0]['image'] != other[0]['image']).any()
  more = AmbiguousScenes(3, 16, 9, seed=7)  # of the same scene
  np.testing.assert_array_equal(few[1]['image'], more[1]['image'])


@pytest.mark.parametrize('size', [16, 32, 64])
def test_modes_differ_and_their_probabilities_add_up(size):
  scenes = AmbiguousScenes(20, size)
  for i in range(len(scenes)):
    modes = scenes.modes(i)
    assert len({id_map.tobytes() for id_map in modes.id_maps}) == 12
    assert modes.probabilities.sum() == pytest.approx(1)
    assert (modes.probabilities > 0).all()
    assert scenes[i]['image'].shape == (size, size, 3)


def test_annotators_choose_as_often_as_stated():
  scenes = AmbiguousScenes(4, 16, num_annotators=20_000)
  for i in range(len(scenes)):
    modes = scenes.modes(i)
    numbers = {m.tobytes(): k for k, m in enumerate(modes.id_maps)}
    drawn = [numbers[m.tobytes()] for m in scenes[i]['id_maps']]
    shares = np.bincount(drawn, minlength=12) / len(drawn)
    np.testing.assert_allclose(shares, modes.probabilities, atol=0.015)
    parted, shadowed = (
      modes.probabilities[modes.choices[:, k] == 1].sum() for k in range(2)
    )
    assert {parted, shadowed} <= {0.25, 0.75}


def test_what_decides_can_be_seen():
  scenes = AmbiguousScenes(40, 32)
  contrast = {0.25: [], 0.75: []}
  for i in range(len(scenes)):
    modes, image = scenes.modes(i), scenes[i]['image'].astype(float)
    parted = modes.probabilities[modes.choices[:, 0] == 1].sum()
    whole = modes.id_maps[np.argmax(modes.choices[:, 0])]
    means = [image[whole == part].mean(axis=0) for part in (1, 2)]
    contrast[round(parted, 2)].append(abs(means[0] - means[1]).mean())
  assert max(contrast[0.25]) < min(contrast[0.75])


def test_the_chance_of_a_pair_is_the_mean_over_annotations():
  scenes = AmbiguousScenes(2, 16, num_annotators=20_000)
  modes = scenes.modes(1)
  pairs = uncertainty.draw_pairs(np.ones((16, 16), bool), 400)
  flat = modes.id_maps.reshape(12, -1)
  together = flat[:, pairs[0]] == flat[:, pairs[1]]
  exact = modes.probabilities @ together
  drawn = uncertainty.share_together(scenes[1]['id_maps'], pairs)
  np.testing.assert_allclose(drawn, exact, atol=0.015)


def test_wrong_settings_and_indices_are_refused():
  with pytest.raises(ValueError, match='num_annotators=0'):
    AmbiguousScenes(1, 16, 0)
  with pytest.raises(IndexError, match='no scene 1 in'):
    AmbiguousScenes(1, 16)[1]
