"""Photos in, segmentations out: sizes, seeds, batches, export."""

import concurrent.futures
import copy
import importlib.util
import itertools
import multiprocessing
import os
import pickle

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from bitseg_jax import metrics, relabel
from bitseg_jax.app import stablehlo_loader
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.page import actions
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import consensus, draw_samples
from bitseg_jax.runs import build, checkpoint, weights


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


@pytest.fixture(scope='module')
def shipped_model():
  return Segmenter.from_pretrained()


def draws(monkeypatch, x_hat):
  """Replaces the sampler; returns a list of the options it is made with."""
  made = []

  def make_functions(parts, options, *_):
    made.append(options)
    return draw_samples.Functions(
      lambda params, image: jax.numpy.zeros(len(image)),
      lambda params, seen, *_: jax.numpy.stack([x_hat] * len(seen)),
    )

  monkeypatch.setattr(draw_samples, 'make_functions', make_functions)
  return made


def assert_same_segments(ids, expected):
  np.testing.assert_array_equal(
    relabel.by_first_appearance(ids), relabel.by_first_appearance(expected)
  )


def assert_same(result, other):
  for name in 'id_map', 'samples', 'uncertainty', 'confidence':
    np.testing.assert_array_equal(getattr(result, name), getattr(other, name))


@pytest.mark.parametrize(
  ('height', 'width'), [(30, 47), (47, 30), (5, 9), (40, 1), (1, 40), (1, 1)]
)
def test_results_have_the_photos_size(model, height, width, draw_photo):
  photo = draw_photo(0, height, width)
  result = model.segment(photo, num_samples=1)
  assert result.id_map.shape == result.uncertainty.shape == (height, width)
  assert result.id_map.dtype == np.int32
  assert result.uncertainty.dtype == np.float32
  assert 0 <= result.uncertainty.min() <= result.uncertainty.max() < 1
  np.testing.assert_array_equal(result.samples, result.id_map[None])
  assert result.confidence.shape == (result.id_map.max() + 1,)
  assert ((result.confidence > 0) & (result.confidence <= 1)).all()
  ids = np.unique(result.id_map)
  np.testing.assert_array_equal(ids, np.arange(len(ids)))


def test_the_seed_and_the_photo_decide(model, draw_photo):
  photo = draw_photo(0, 30, 47)
  first = model.segment(photo, seed=3)
  assert first.id_map.max() > 0
  # Together with another, for it to be drawn again.
  _, again = model.segment_batch([draw_photo(1, 9, 9), photo.copy()], seed=3)
  assert_same(first, again)
  assert (first.id_map != model.segment(photo, seed=4).id_map).any()
  other = model.segment(draw_photo(1, 30, 47), seed=3)
  assert (first.id_map != other.id_map).any()


def test_the_batch_does_not_matter(random_run, draw_photo):
  model = Segmenter.from_checkpoint(random_run, batch_size=4)
  images = [draw_photo(i, 20 + 7 * i, 33) for i in range(3)]
  together = model.segment_batch(images, num_samples=5, seed=1)
  assert len(images) * 5 % model.batch_size  # full batches and a filled one
  for image, result in zip(images, together, strict=True):
    assert result.samples.shape == (5, *image.shape[:2])
    assert_same(result, model.segment(image, num_samples=5, seed=1))
    # More samples go on where fewer end.
    fewer = model.segment(image, num_samples=2, seed=1)
    np.testing.assert_array_equal(fewer.samples, result.samples[:2])
  assert model.segment_batch([]) == []


def test_options_may_be_given_together_or_one_by_one(model, draw_photo):
  photo, options = draw_photo(0, 30, 47), AnswerOptions(num_samples=2, seed=5)
  together = model.segment(photo, options=options)
  assert_same(together, model.segment(photo, 2, 5))
  assert len(model.segment(photo, 3, options=options).samples) == 3
  assert_same(model.segment(photo, None), model.segment(photo, 8, 0))


def test_one_sample_has_no_close_ups_to_join(model, draw_photo):
  told = []
  model.segment(draw_photo(0, 30, 47), 1, closeups=2, progress=told.append)
  assert told == [(1, 1)]


def test_marks_are_answered_from_what_was_drawn(model, draw_photo, monkeypatch):
  photo, known = draw_photo(0, 30, 47).copy(), np.full((30, 47), -1)
  known[3, 3], known[20, 40] = 0, 1
  expected = model.segment(photo, 2, seed=6, known=known)
  calls, draw = [], type(model)._draw
  monkeypatch.setattr(
    type(model), '_draw', lambda *a: calls.append(1) or draw(*a)
  )
  model.segment(photo, 2, seed=7)
  assert calls == [1]
  assert_same(
    model.segment(photo, 2, seed=7, known=known, closeups=2),
    model.segment(photo, 2, seed=7, known=known),
  )
  assert calls == [1]
  # Anything else is drawn anew: another seed, and other pixels in its place.
  assert_same(model.segment(photo, 2, seed=6, known=known), expected)
  photo[:] = 0
  changed = model.segment(photo, 2, seed=6, known=known)
  assert calls == [1, 1, 1]
  assert (changed.samples != expected.samples).any()


def test_several_samples_differ_and_make_one_answer(model, draw_photo):
  result = model.segment(draw_photo(0, 16, 16), num_samples=4)
  assert all(
    (a != b).any() for a, b in itertools.combinations(result.samples, 2)
  )
  expected = consensus.consensus(result.samples)
  assert metrics.adjusted_rand_index(expected, result.id_map) == 1
  np.testing.assert_allclose(
    result.uncertainty, consensus.doubt(result.id_map, result.samples)
  )
  assert result.confidence.shape == (result.id_map.max() + 1,)
  np.testing.assert_allclose(
    result.confidence, consensus.stability(result.id_map, result.samples)
  )


@pytest.mark.parametrize('turn', [0, 1])
def test_what_is_drawn_lands_where_the_photo_was(
  random_run, monkeypatch, turn, draw_photo
):
  """A sampler that draws two halves, an odd corner, and padding."""
  height, width = (8, 32)  # 4 x 16 for the model
  codes = np.full((16, 16), 9)
  codes[:4, :8], codes[:4, 8:], codes[0, 0] = 3, 5, 12
  bits = 2 * (codes[..., None] >> np.arange(4) & 1) - 1
  if turn:
    bits, height, width = bits.swapaxes(0, 1), width, height
  draws(monkeypatch, bits * np.float32(0.5))
  model = Segmenter.from_checkpoint(random_run)
  photo = draw_photo(0, height, width)
  result = model.segment(photo, 1, follow_edges=False)
  expected = np.repeat([[0, 1]], 16, axis=1).repeat(8, axis=0)
  expected[:2, :2] = 2
  assert_same_segments(result.id_map, expected.T if turn else expected)
  np.testing.assert_allclose(result.uncertainty, 1 - 0.75**4, rtol=1e-6)


def test_settings_of_the_sampler_can_be_set(
  random_run, monkeypatch, draw_photo
):
  made = draws(monkeypatch, np.zeros((16, 16, 4), np.float32))
  model = Segmenter.from_checkpoint(random_run)
  photo = draw_photo(0, 16, 16)
  for num_steps, weight in (None, None), (5, None), (None, 0), (2, 1), (5, 1):
    model.segment(photo, num_steps=num_steps, guidance_weight=weight)
  # Each is compiled once; the config says (2, 1).
  assert [(o.num_steps, o.guidance_weight) for o in made] == [
    (2, 1),
    (5, 1),
    (2, 0),
  ]


def test_photos_come_in_many_kinds(model, draw_photo):
  photo = draw_photo(0, 12, 16)
  image = Image.fromarray(photo)
  expected = model.segment(photo)
  assert_same(model.segment(image), expected)
  assert_same(model.segment(image.convert('RGBA')), expected)
  grey = np.asarray(image.convert('L'))
  assert_same(model.segment(grey), model.segment(image.convert('L')))
  assert_same(model.segment(grey), model.segment(grey[..., None].repeat(3, 2)))
  image.getexif()[0x0112] = 6  # to be shown turned by a quarter
  turned = model.segment(image)
  assert_same(turned, model.segment(np.rot90(photo, -1)))


@pytest.mark.parametrize(
  ('image', 'reason'),
  [
    (np.zeros((0, 4, 3), np.uint8), r'uint8 \[0, 4, 3\]'),
    (np.zeros((2, 4, 4, 3), np.uint8), r'uint8 \[2, 4, 4, 3\]'),
    ('nowhere.jpg', 'nowhere.jpg: cannot be read'),
  ],
)
def test_other_images_are_refused(model, image, reason):
  with pytest.raises(ValueError, match=reason):
    model.segment(image)


def test_numbers_below_one_are_refused(model, draw_photo):
  photo = draw_photo(0, 4, 4)
  for name in ('num_samples', 'num_steps'):
    with pytest.raises(ValueError, match=f'{name} is 0'):
      model.segment(photo, **{name: 0})


def test_a_path_names_a_run_or_a_step(random_run):
  folder = random_run / 'checkpoints'
  for path, step in ((random_run, 2), (folder / '1', 1)):
    assert Segmenter.from_checkpoint(path).step == step
  with pytest.raises(FileNotFoundError, match=r'/7: no such folder'):
    Segmenter.from_checkpoint(folder / '7')
  with pytest.raises(FileNotFoundError, match=r'nowhere: no such folder'):
    Segmenter.from_checkpoint(random_run / 'nowhere')


def test_the_kind_of_weights_can_be_chosen(random_run, model, draw_photo):
  photo = draw_photo(0, 16, 16)
  raw = Segmenter.from_checkpoint(random_run, kind='params')
  assert (raw.segment(photo).id_map != model.segment(photo).id_map).any()
  with pytest.raises(ValueError, match='choose one of ema_params, params'):
    Segmenter.from_checkpoint(random_run, kind='ema')


def test_threads_may_share_a_segmenter(random_run, draw_photo, monkeypatch):
  made = []
  make = draw_samples.make_functions
  monkeypatch.setattr(
    draw_samples, 'make_functions', lambda *a: made.append(a) or make(*a)
  )
  model = Segmenter.from_checkpoint(random_run)
  images = [draw_photo(i, 16, 16) for i in range(4)]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    results = list(pool.map(model.segment, images))
  assert len(made) == 1
  for image, result in zip(images, results, strict=True):
    assert_same(result, model.segment(image))


def _segment_elsewhere(pickled, photo):
  return pickle.loads(pickled).segment(photo, 2)


def test_results_and_segmenters_go_to_other_processes(model, draw_photo):
  photo = draw_photo(0, 30, 47)
  known = np.full((30, 47), -1)
  known[3, 3], known[20, 40] = 0, 1
  for settings in {}, {'known': known}, {'num_samples': 1}:
    result = model.segment(photo, **{'num_samples': 2, **settings})
    assert_same(pickle.loads(pickle.dumps(result)), result)
    assert_same(copy.deepcopy(result), result)
  result = model.segment(photo, 2)
  assert_same(copy.deepcopy(model).segment(photo, 2), result)
  spawn = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
    given = pickle.dumps(model), photo
    assert_same(pool.submit(_segment_elsewhere, *given).result(), result)


def test_photos_come_from_files_deep_ones_and_pages_too(
  model, draw_photo, tmp_path
):
  photo = draw_photo(0, 12, 16)
  path = tmp_path / 'photo.png'
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(photo).save(path, exif=exif)
  expected = model.segment(photo)
  assert_same(model.segment(str(path), exif='ignore'), expected)
  assert_same(model.segment(path), model.segment(np.rot90(photo, -1)))
  pages = [Image.fromarray(draw_photo(i, 12, 16)) for i in (1, 0)]
  pages[0].save(tmp_path / 'stack.tif', save_all=True, append_images=pages[1:])
  assert_same(model.segment(tmp_path / 'stack.tif', page=1), expected)


@pytest.mark.parametrize('larger', [3, 8])
def test_a_photo_of_any_size_is_segmented_alike(larger, shipped_model):
  """Of 4,000 pixels it had been segmented quite differently."""
  small = Image.open(actions.EXAMPLES[0]).convert('RGB')
  size = [larger * side for side in small.size]
  large = np.asarray(small.resize(size, Image.Resampling.BICUBIC))
  found = shipped_model.segment(large).id_map[::larger, ::larger]
  expected = shipped_model.segment(np.asarray(small)).id_map
  assert metrics.adjusted_rand_index(expected, found) > 0.8


def test_what_is_exported_draws_the_same_codes(model, draw_photo, tmp_path):
  model.export(tmp_path / 'exported')
  path = tmp_path / 'exported' / 'load.py'
  spec = importlib.util.spec_from_file_location('load', path)
  loader = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(loader)
  sample = loader.load(tmp_path / 'exported')
  images = [draw_photo(0, 16, 16), draw_photo(1, 16, 9), draw_photo(2, 5, 16)]
  for number in 0, 1:
    drawn = sample(images, seed=3, number=number)
    for image, codes in zip(images, drawn, strict=True):
      expected = model.segment(image, num_samples=2, seed=3).samples[number]
      assert_same_segments(codes, expected)
  assert stablehlo_loader.PAD_COLOR == transforms.PAD_COLOR


def test_codes_decoded_on_the_host_are_not_exported(random_run, tmp_path):
  config = ConfigDict(checkpoint.read_config(random_run))
  config.codes.encoding = 'rgb'
  params = build.build(config).init_params(jax.random.key(0))
  model = Segmenter(weights.Weights(params, config))
  with pytest.raises(ValueError, match='RGB codes are decoded outside'):
    model.export(tmp_path / 'exported')
  assert not (tmp_path / 'exported').exists()


def test_samples_that_are_not_finite_are_refused(
  random_run, monkeypatch, draw_photo
):
  draws(monkeypatch, np.full((16, 16, 4), np.nan))
  segmenter = Segmenter.from_checkpoint(random_run)
  with pytest.raises(ValueError, match='not finite'):
    segmenter.segment(draw_photo(0, 16, 16))


def test_exporting_keeps_what_is_there(model, tmp_path):
  with pytest.raises(FileExistsError, match='another folder'):
    model.export(tmp_path)
  assert not os.listdir(tmp_path)
