"""Photos in, segmentations out: sizes, seeds, batches, files."""

import itertools

import grain
import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from PIL import Image

from bitseg_jax import (
  checkpoint,
  evaluate,
  experiment,
  photos,
  predict,
  segmenter,
  sharding,
  train_state,
)
from bitseg_jax.segmenter import Segmenter
from configs import quickstart


def draw_photo(seed, height, width):
  """Coarse random blocks, for a model to react to."""
  colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
  return np.asarray(Image.fromarray(colors).resize((width, height), 0))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Steps 1 and 2 of a run whose weights are random throughout."""
  config = ConfigDict(quickstart.get_config().to_dict())
  config.data.image_size = 16
  config.model.base_channels = 32
  config.model.channel_mults = (1,)  # compiles fastest
  config.model.attention_levels = ()
  config.sample.num_steps = 2
  parts = experiment.build(config)
  # No test machine has devices for it; segmenting must not mind.
  config.train.batch_size = 13

  def weights(seed):
    # The initial ones end in zeros: nothing would come of photo or noise.
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(parts.init_params, jax.random.key(0))
    draw = lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32)
    return jax.tree.map(draw, shapes)

  folder = tmp_path_factory.mktemp('run')
  batches = iter(grain.MapDataset.range(4).to_iter_dataset())
  with checkpoint.open_manager(folder) as manager:
    for step in (1, 2):
      state = train_state.create_state(weights(step), optax.sgd(0.1))
      state = state.replace(ema_params=weights(step + 10))
      checkpoint.save(manager, step, state, batches, config.to_dict())
  return folder


@pytest.fixture(scope='module')
def model(workdir):
  return Segmenter.from_checkpoint(workdir)


def assert_same(result, other):
  for values, others in zip(result, other, strict=True):
    np.testing.assert_array_equal(values, others)


@pytest.mark.parametrize(
  ('height', 'width'), [(30, 47), (47, 30), (5, 9), (40, 1), (1, 40), (1, 1)]
)
def test_results_have_the_photos_size(model, height, width):
  photo = draw_photo(0, height, width)
  result = model.segment(photo)
  assert result.id_map.shape == result.uncertainty.shape == (height, width)
  assert result.id_map.dtype == np.int32
  assert result.uncertainty.dtype == np.float32
  assert 0 <= result.uncertainty.min() <= result.uncertainty.max() < 1
  assert_same(result.samples, result.id_map[None])
  ids = np.unique(result.id_map)
  np.testing.assert_array_equal(ids, np.arange(len(ids)))


def test_the_seed_and_the_photo_decide(model):
  photo = draw_photo(0, 30, 47)
  first = model.segment(photo, seed=3)
  assert first.id_map.max() > 0
  assert_same(first, model.segment(photo.copy(), seed=3))
  assert (first.id_map != model.segment(photo, seed=4).id_map).any()
  other = model.segment(draw_photo(1, 30, 47), seed=3)
  assert (first.id_map != other.id_map).any()


def test_the_batch_does_not_matter(workdir):
  model = Segmenter.from_checkpoint(workdir, batch_size=4)
  images = [draw_photo(i, 20 + 7 * i, 33) for i in range(3)]
  together = model.segment_batch(images, num_samples=5, seed=1)
  assert len(images) * 5 % model.batch_size  # full batches and a filled one
  for image, result in zip(images, together, strict=True):
    assert result.samples.shape == (5, *image.shape[:2])
    assert_same(result, model.segment(image, num_samples=5, seed=1))
    # More samples go on where fewer end.
    fewer = model.segment(image, num_samples=2, seed=1)
    assert_same(fewer.samples, result.samples[:2])
  assert model.segment_batch([]) == []


def test_several_samples_differ_and_one_is_chosen(model):
  result = model.segment(draw_photo(0, 16, 16), num_samples=4)
  assert all(
    (a != b).any() for a, b in itertools.combinations(result.samples, 2)
  )
  chosen = result.samples[segmenter.medoid(result.samples)]
  np.testing.assert_array_equal(result.id_map, chosen)
  np.testing.assert_allclose(
    result.uncertainty, segmenter.disagreement(result.samples)
  )


@pytest.mark.parametrize('turn', [0, 1])
def test_what_is_drawn_lands_where_the_photo_was(workdir, monkeypatch, turn):
  """A sampler that draws two halves, an odd corner, and padding."""
  height, width = (8, 32)  # 4 x 16 for the model
  codes = np.full((16, 16), 9)
  codes[:4, :8], codes[:4, 8:], codes[0, 0] = 3, 5, 12
  bits = 2 * (codes[..., None] >> np.arange(4) & 1) - 1
  if turn:
    bits, height, width = bits.swapaxes(0, 1), width, height
  monkeypatch.setattr(
    evaluate,
    'make_sample_fn',
    lambda *_: (
      lambda params, image, size, keys: np.stack(
        [bits * np.float32(0.5)] * len(image)
      )
    ),
  )
  model = Segmenter.from_checkpoint(workdir)
  result = model.segment(draw_photo(0, height, width))
  expected = np.repeat([[0, 1]], 16, axis=1).repeat(8, axis=0)
  expected[:2, :2] = 2
  np.testing.assert_array_equal(result.id_map, expected.T if turn else expected)
  np.testing.assert_allclose(result.uncertainty, 1 - 0.75**4, rtol=1e-6)


def test_settings_of_the_sampler_can_be_set(workdir, monkeypatch):
  made = []

  def make_sample_fn(parts, settings, mesh):
    made.append((settings.num_steps, settings.guidance_weight))
    shape = (parts.image_size, parts.image_size, parts.codec.channels)
    return lambda params, image, size, keys: np.zeros((len(image), *shape))

  monkeypatch.setattr(evaluate, 'make_sample_fn', make_sample_fn)
  model = Segmenter.from_checkpoint(workdir)
  photo = draw_photo(0, 16, 16)
  for num_steps, weight in (None, None), (5, None), (None, 0), (2, 1), (5, 1):
    model.segment(photo, num_steps=num_steps, guidance_weight=weight)
  # Each is compiled once; the config says (2, 1).
  assert made == [(2, 1), (5, 1), (2, 0)]


def test_photos_come_in_many_kinds(model):
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
    (np.zeros((4, 4, 3), np.float32), r'float32 \[4, 4, 3\]'),
    (np.zeros((4, 4, 4), np.uint8), r'uint8 \[4, 4, 4\]'),
    (np.zeros((0, 4, 3), np.uint8), r'uint8 \[0, 4, 3\]'),
    (np.zeros((2, 4, 4, 3), np.uint8), r'uint8 \[2, 4, 4, 3\]'),
    (Image.fromarray(np.zeros((4, 4), np.uint16)), '8 bits'),
    ('photo.jpg', 'Pillow image'),
  ],
)
def test_other_images_are_refused(model, image, reason):
  with pytest.raises(ValueError, match=reason):
    model.segment(image)


def test_numbers_below_one_are_refused(model):
  photo = draw_photo(0, 4, 4)
  for name in ('num_samples', 'num_steps'):
    with pytest.raises(ValueError, match=f'{name} is 0'):
      model.segment(photo, **{name: 0})


def test_disagreement_looks_at_regions_not_ids():
  halves = np.repeat([[0, 0, 1, 1]], 4, axis=0)
  renamed = 700 - 9 * halves
  np.testing.assert_array_equal(
    segmenter.disagreement(np.stack([halves, renamed, halves])), 0
  )
  # Left: 8 pixels in 16; so right. One map against two that agree.
  whole = np.zeros_like(halves)
  np.testing.assert_allclose(segmenter.disagreement([halves, whole]), 0.5)
  np.testing.assert_allclose(
    segmenter.disagreement([halves, whole, renamed]), 1 / 3
  )
  # Where a segment is the same in all, it is certain.
  quarters = halves.copy()
  quarters[:2, :2] = 2
  unsure = segmenter.disagreement([halves, quarters])
  np.testing.assert_array_equal(unsure > 0, halves == 0)


def test_medoid_is_in_the_middle():
  a = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 4, axis=0)
  b = np.repeat([[0, 0, 0, 1, 1, 1, 1, 1]], 4, axis=0)
  c = np.repeat([[5, 5, 3, 3, 3, 3, 3, 3]], 4, axis=0)
  assert segmenter.medoid(np.stack([a, b, c])) == 1
  assert segmenter.medoid(np.stack([b, a, c])) == 0
  assert segmenter.medoid(np.stack([c, c])) == 0


def test_a_path_names_a_run_or_a_step(workdir):
  saved = checkpoint.read_config(workdir / 'checkpoints')
  assert saved['train']['batch_size'] == 13
  saved['train']['batch_size'] = 8
  parts = experiment.build(ConfigDict(saved))
  abstract = experiment.abstract_params(parts, sharding.make_mesh())
  folder = workdir / 'checkpoints'
  for path, step in ((workdir, 2), (folder, 2), (folder / '1', 1)):
    assert checkpoint.read_params(path, abstract)[0] == step
  with pytest.raises(FileNotFoundError, match=r'no whole checkpoint in .*/7'):
    Segmenter.from_checkpoint(folder / '7')
  with pytest.raises(FileNotFoundError, match=r'nowhere.* does not exist'):
    Segmenter.from_checkpoint(workdir / 'nowhere')


def test_the_kind_of_weights_can_be_chosen(workdir, model):
  photo = draw_photo(0, 16, 16)
  raw = Segmenter.from_checkpoint(workdir, kind='params')
  assert (raw.segment(photo).id_map != model.segment(photo).id_map).any()
  with pytest.raises(ValueError, match='choose one of ema_params, params'):
    Segmenter.from_checkpoint(workdir, kind='ema')


def test_predict_writes_pictures_and_names_bad_files(
  workdir, model, tmp_path, capsys
):
  inputs, output = tmp_path / 'in', tmp_path / 'out'
  inputs.mkdir()
  photo = draw_photo(0, 30, 47)
  Image.fromarray(photo).save(inputs / 'good.jpg')
  Image.fromarray(photo).save(inputs / 'noise.jpg', quality=100)
  whole = (inputs / 'noise.jpg').read_bytes()
  (inputs / 'broken.jpg').write_bytes(whole[: len(whole) // 2])
  (inputs / 'noise.jpg').unlink()
  (inputs / 'empty.png').touch()
  (inputs / 'notes.txt').write_text('no photo')
  grey = Image.fromarray(photo).convert('L').resize((20, 1100))
  grey.save(inputs / 'grey.png')

  code = predict.predict(str(workdir), str(inputs), str(output), 2, seed=5)

  assert code == 1
  out, err = capsys.readouterr()
  assert out.startswith('2 of 4 photos segmented into')
  skipped = [line for line in err.splitlines() if 'skipped: ' in line]
  assert len(skipped) == 2
  assert 'broken.jpg: unreadable' in skipped[0]
  assert 'empty.png: unreadable' in skipped[1]
  kinds = ('labels', 'overlay', 'samples', 'uncertainty')
  assert sorted(path.name for path in output.iterdir()) == [
    f'{name}_{kind}.png' for name in ('good', 'grey') for kind in kinds
  ]
  for name, image in ('good', Image.open(inputs / 'good.jpg')), ('grey', grey):
    labels = Image.open(output / f'{name}_labels.png')
    assert labels.mode == 'I;16'
    assert labels.size == image.size
    expected = model.segment(image, num_samples=2, seed=5)
    np.testing.assert_array_equal(np.asarray(labels), expected.id_map + 1)
    for kind in ('overlay', 'uncertainty'):
      picture = Image.open(output / f'{name}_{kind}.png')
      assert picture.mode == 'RGB'
      assert max(picture.size) == min(max(image.size), photos.LONGEST_SIDE)


def test_one_sample_needs_no_pictures_of_many(tmp_path):
  ids = np.zeros((1, 8, 8), np.int32)
  result = segmenter.Segmentation(ids[0], ids, np.zeros((8, 8), np.float32))
  photos.write(tmp_path / 'new' / 'out', 'a', draw_photo(0, 8, 8), result)
  names = sorted(path.name for path in (tmp_path / 'new' / 'out').iterdir())
  assert names == ['a_labels.png', 'a_overlay.png']


def test_find_takes_photos_folders_and_patterns(tmp_path):
  (tmp_path / 'deep').mkdir()
  names = ('a[1].png', 'b.JPG', '.hidden.png', 'notes.txt', 'deep/c.png')
  for name in names:
    (tmp_path / name).touch()
  for inputs, expected in (
    ('', ['a[1].png', 'b.JPG']),
    ('a[1].png', ['a[1].png']),
    ('[ab]*', ['a[1].png', 'b.JPG']),
    ('**/*.png', ['a[1].png', 'deep/c.png']),
  ):
    found = photos.find(str(tmp_path / inputs), tmp_path / 'out')
    assert found == [tmp_path / name for name in expected]


def test_predict_refuses_before_it_starts(tmp_path, capsys):
  def refuse(inputs, output):
    assert predict.predict('nowhere', str(inputs), str(output)) == 1
    out, err = capsys.readouterr()
    assert out == ''
    assert err.count('\n') == 1
    return err

  folder = tmp_path / 'in'
  folder.mkdir()
  assert 'no photo there' in refuse(folder, tmp_path / 'out')
  assert 'no photo there' in refuse(tmp_path / '*.jpg', tmp_path / 'out')
  (folder / 'a.jpg').touch()
  assert 'in the output directory' in refuse(folder, folder)
  assert 'nowhere' in refuse(folder, tmp_path / 'out')
  (folder / 'a.png').touch()
  error = refuse(folder, tmp_path / 'out')
  assert 'a.jpg and' in error
  assert 'a_labels.png' in error
  assert not (tmp_path / 'out').exists()
