"""The model that comes with the package: there, small, described, and used."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from bitseg_jax import Segmenter
from bitseg_jax.app.page import actions
from bitseg_jax.data.images import read_photo
from bitseg_jax.runs import build, weights


@pytest.fixture(scope='module')
def model():
  return Segmenter.from_pretrained()


def test_what_comes_with_the_package():
  assert weights.shipped() == [weights.DEFAULT, 'photos-free']
  assert all(name in weights.FLAG_HELP for name in weights.shipped())


@pytest.mark.parametrize('name', weights.shipped())
def test_it_is_small_and_says_what_it_was_trained_on(name):
  folder = weights.SHIPPED / name
  size = sum(path.stat().st_size for path in folder.iterdir())
  assert size < 20e6
  card = (folder / weights.CARD).read_text()
  for word in ('BSDS500', 'research', 'Apache-2.0', 'CC0', 'ARI', 'cannot'):
    assert word in card, word


@pytest.mark.parametrize('name', weights.shipped())
def test_it_is_of_its_network(name):
  """Which `read` takes for granted."""
  found = weights.read(name)
  shapes = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
  assert shapes(found.params) == shapes(build.abstract_params(found.config))


@pytest.mark.parametrize('name', weights.shipped())
def test_it_holds_no_path_of_the_machine_it_was_trained_on(name):
  config = json.loads((weights.SHIPPED / name / weights.CONFIG).read_text())
  assert not [v for v in config['data'].values() if '/' in str(v)]
  assert not config.get('init_from')


def test_it_segments_a_photograph_always_the_same_way(model):
  photo = read_photo(actions.EXAMPLES[0])
  first = model.segment(photo, num_samples=2)
  # Another model draws it again; this one has kept what it drew.
  again = Segmenter.from_pretrained().segment(photo, num_samples=2)
  assert first.id_map.shape == photo.shape[:2]
  assert 3 <= len(first.confidence) <= 64
  np.testing.assert_array_equal(first.id_map, again.id_map)
  other = model.segment(photo, num_samples=2, seed=1)
  assert (first.id_map != other.id_map).any()


@pytest.mark.parametrize('holds', ['nothing', 'photos'])
def test_a_folder_of_photos_named_like_it_is_not_meant(
  tmp_path, monkeypatch, draw_photo, holds
):
  """The first command of the README has such a folder beside it."""
  path = tmp_path / weights.DEFAULT / 'a.png'
  path.parent.mkdir()
  if holds == 'photos':
    Image.fromarray(draw_photo(0, 9, 9)).save(path)
  monkeypatch.chdir(tmp_path)
  found = weights.read(weights.DEFAULT)
  assert found.digest == Segmenter.from_pretrained().digest
  # A model in a folder of this name is meant.
  shutil.rmtree(path.parent)
  Segmenter.from_pretrained().save_pretrained(weights.DEFAULT, 'float32')
  assert weights.read(weights.DEFAULT).digest != found.digest
