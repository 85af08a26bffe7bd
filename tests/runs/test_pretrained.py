"""Pretrained folders: the same model comes back, and damage is named."""

import json
import shutil
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from bitseg_jax import predict
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.runs import (
  build,
  checkpoint,
  devices,
  schema,
  train_state,
  weights,
)
from bitseg_jax.training import train
from tests import calling


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


@pytest.fixture(scope='module')
def found(random_run):
  return weights.read(random_run)


@pytest.fixture(scope='module')
def packed(found, tmp_path_factory):
  """The run's weights as a folder, float32."""
  folder = tmp_path_factory.mktemp('pretrained') / 'packed'
  weights.save(folder, found.params, found.config, 'It is random.', 'float32')
  return folder


@pytest.fixture
def copy(packed, tmp_path):
  """A copy of the folder, to be damaged."""
  return shutil.copytree(packed, tmp_path / 'copy')


def assert_same(params, others, dtype=np.float32):
  def check(a, b):
    assert b.dtype == np.float32
    expected = np.asarray(a).astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(expected, b)

  jax.tree.map(check, params, others)


def test_as_float32_the_samples_are_the_same(model, found, packed, draw_photo):
  other = Segmenter.from_pretrained(packed)
  assert other.step is None and len(other.digest) == 64
  assert_same(found.params, weights.read(packed).params)
  photo = draw_photo(0, 30, 47)
  drawn = [m.segment(photo, num_samples=3, seed=1) for m in (model, other)]
  for name in 'id_map', 'samples', 'uncertainty', 'confidence':
    np.testing.assert_array_equal(*(getattr(d, name) for d in drawn))


def test_as_bfloat16_it_has_half_the_size_and_draws_almost_the_same(
  model, found, packed, draw_photo, tmp_path
):
  model.save_pretrained(tmp_path / 'half', card='Half the *size*.')
  size = lambda folder: (folder / weights.WEIGHTS).stat().st_size
  assert size(tmp_path / 'half') < 0.6 * size(packed)
  assert 'Half the *size*.' in (tmp_path / 'half' / 'README.md').read_text()
  other = Segmenter.from_pretrained(tmp_path / 'half')
  params = weights.read(tmp_path / 'half').params
  assert_same(found.params, params, ml_dtypes.bfloat16)
  photo = draw_photo(0, 16, 16)
  drawn = [m.segment(photo, num_samples=8).samples for m in (model, other)]
  assert np.mean(drawn[0] == drawn[1]) > 0.9
  # Once more, it is what it was.
  other.save_pretrained(tmp_path / 'again')
  # Whose folders it was trained from is not told.
  kept = schema.complete(schema.without_paths(found.config))
  assert weights.read(tmp_path / 'again').config == kept
  assert kept.data.dir == 'entityseg'
  assert_same(params, weights.read(tmp_path / 'again').params)


def test_all_that_a_model_is_called(random_run, packed, tmp_path, monkeypatch):
  step = random_run / 'checkpoints' / '1'
  assert [weights.read(n).step for n in (random_run, step)] == [2, 1]
  shipped = ', '.join(weights.shipped())
  with pytest.raises(FileNotFoundError, match=f'package, which has {shipped}'):
    Segmenter.from_pretrained('small')
  monkeypatch.setattr(weights, 'SHIPPED', tmp_path)
  shutil.copytree(packed, tmp_path / 'small')
  assert_same(weights.read(packed).params, weights.read('small').params)
  with pytest.raises(FileNotFoundError, match='the package, which has small'):
    Segmenter.from_pretrained('large')
  with pytest.raises(ValueError, match=r'kind is .ema.; choose'):
    weights.read(random_run, 'ema')


def test_the_hub_is_read_from_its_cache(packed, tmp_path, monkeypatch):
  constants = pytest.importorskip('huggingface_hub.constants')
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
  with pytest.raises(OSError, match='hf://me/mine cannot be had') as caught:
    weights.read('hf://me/mine')
  assert '\n' not in str(caught.value)
  revision = '0' * 40
  repository = tmp_path / 'models--me--mine'
  shutil.copytree(packed, repository / 'snapshots' / revision)
  (repository / 'refs').mkdir()
  (repository / 'refs' / 'main').write_text(revision)
  for name in 'hf://me/mine', f'hf://me/mine@{revision}':
    assert weights.read(name).digest == weights.read(packed).digest
  with pytest.raises(OSError, match='hf://me/mine@v2 cannot be had'):
    weights.read('hf://me/mine@v2')
  with pytest.raises(ValueError, match='hf://mine is not of the form'):
    weights.read('hf://mine')


def test_without_its_library_the_hub_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(ImportError, match=r'pip install huggingface_hub'):
    weights.read('hf://me/mine')


def tensors(change):
  def damage(folder):
    path = folder / weights.WEIGHTS
    found = safetensors.numpy.load_file(path)
    change(found)
    safetensors.numpy.save_file(found, path)

  return damage


def bias(change):
  """Changes the tensor stem/bias, or a copy of it in place."""

  def damage(found):
    new = found['stem/bias'].copy()
    found['stem/bias'] = new if (made := change(new)) is None else made

  return tensors(damage)


def data(change, name=weights.WEIGHTS):
  def damage(folder):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))

  return damage


def config(old, new):
  return data(lambda b: b.replace(old, new, 1), weights.CONFIG)


def removed(name):
  return lambda folder: (folder / name).unlink()


def floats_of_8_bits(folder):
  """Which numpy does not have."""
  about = {'dtype': 'F8_E4M3', 'shape': [4], 'data_offsets': [0, 4]}
  header = json.dumps({'stem/bias': about}).encode()
  content = len(header).to_bytes(8, 'little') + header + b'1234'
  (folder / weights.WEIGHTS).write_bytes(content)


BROKEN = 'model.safetensors: damaged'
CHANGED = 'model.safetensors, or config.json beside it, was changed'
NO_CONFIG = 'config.json: no config'
DAMAGED = {
  'truncated': (data(lambda b: b[:-4]), BROKEN),
  'empty': (data(lambda b: b''), BROKEN),
  'header': (data(lambda b: b'\xff' * 8 + b[8:]), BROKEN),
  'no weights': (removed(weights.WEIGHTS), 'model.safetensors is missing'),
  'no config': (removed(weights.CONFIG), 'config.json is missing'),
  'no json': (data(lambda b: b[:-9], weights.CONFIG), 'not whole JSON'),
  'a list': (data(lambda b: b'[]', weights.CONFIG), NO_CONFIG),
  'a new setting': (config(b'"seed"', b'"sead"'), 'sead'),
  'missing': (tensors(lambda t: t.pop('stem/bias')), 'bias is missing'),
  'too many': (
    tensors(lambda t: t.update(stem=np.ones(3, np.float32))),
    'tensor stem is none that the network has',
  ),
  'shape': (
    bias(lambda w: w[:5]),
    r'tensor stem/bias has shape \[5\], but that of the network \[32\]',
  ),
  'dtype': (
    bias(lambda w: w.astype(np.float16)),
    'tensor stem/bias is float16, not float32 or bfloat16',
  ),
  'a flipped bit': (
    data(lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:]),
    CHANGED,
  ),
  'null': (
    config(b'"keep_checkpoints": 2', b'"keep_checkpoints": null'),
    CHANGED,
  ),
  '8 bits': (floats_of_8_bits, BROKEN),
  'a changed setting': (config(b'"seed": 0', b'"seed": 1'), CHANGED),
  'nan': (bias(lambda w: w.fill(np.nan)), 'bias has values that are not fini'),
}


@pytest.mark.parametrize('damage', DAMAGED)
def test_what_is_damaged_is_named(copy, damage):
  change, message = DAMAGED[damage]
  change(copy)
  with pytest.raises((ValueError, OSError), match=message) as caught:
    if damage == 'no weights':  # is still no run
      weights.read(copy)
    weights.read(copy)
  assert '\n' not in str(caught.value) and str(copy) in str(caught.value)


def test_nothing_of_somebody_else_is_overwritten(found, packed, tmp_path):
  save = lambda folder, **more: weights.save(
    folder, found.params, found.config, **more
  )
  shutil.copytree(packed, tmp_path / 'mine')
  (tmp_path / 'file').touch()
  before = sorted(tmp_path.rglob('*'))
  for folder in tmp_path / 'mine', tmp_path / 'file', tmp_path:
    with pytest.raises(FileExistsError, match='give another folder'):
      save(folder)
  assert sorted(tmp_path.rglob('*')) == before
  (tmp_path / 'empty').mkdir()
  save(tmp_path / 'empty')
  assert weights.read(tmp_path / 'empty').step is None


def test_what_cannot_be_read_is_not_written(found, tmp_path):
  save = lambda params, **more: weights.save(
    tmp_path / 'new', params, found.config, **more
  )
  with pytest.raises(ValueError, match="'half'; choose one of float32, bfl"):
    save(found.params, dtype='half')
  bad = jax.tree.map(lambda w: np.full_like(w, np.inf), found.params)
  with pytest.raises(ValueError, match=r'the parameters: tensor .* not finite'):
    save(bad)
  with pytest.raises(ValueError, match=r'the parameters: tensor .* is missing'):
    save({})

  def full(*_):  # the disk, in the middle of it
    raise OSError('No space left on device')

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(weights, 'write_tensors', full)
    with pytest.raises(OSError, match='No space'):
      save(found.params)
  assert not list(tmp_path.iterdir())


def test_a_run_starts_from_a_pretrained_model(found, packed, tmp_path):
  config = found.config.copy_and_resolve_references()
  config.init_from = str(packed)
  _, optimizer = build.make_optimizer(config)
  state = train_state.create_state(
    jax.tree.map(jnp.zeros_like, found.params), optimizer
  )

  def start(config):
    parts, mesh = build.build(config), devices.make_mesh()
    _, abstract = build.make_state(parts, optimizer, mesh)
    with checkpoint.open_manager(tmp_path) as manager:
      return train.first_state(
        config, tmp_path, lambda key: state, abstract, manager
      )

  started = start(config)
  assert int(started.step) == 0
  for params in started.params, started.ema_params:
    assert_same(found.params, params)
  config.model.base_channels = 16
  with pytest.raises(ValueError, match=r'tensor .* has shape .* the network'):
    start(config)


def test_predict_notices_other_weights(
  found, packed, copy, tmp_path, draw_photo, capsys
):
  Image.fromarray(draw_photo(0, 16, 16)).save(tmp_path / 'a.png')

  def again():
    output = tmp_path / 'out'
    given = {'input': tmp_path / 'a.png', 'output': output}
    code = calling.call(predict, checkpoint=copy, **given)
    assert code == 0, capsys.readouterr().err
    summary = json.loads((output / 'summary.json').read_text())
    return summary['photos'][0]['status'], summary['made_with']

  assert again()[0] == 'done'
  status, made_with = again()
  assert status == 'there' and made_with['step'] is None
  assert made_with['digest'] == weights.read(packed).digest
  shutil.rmtree(copy)
  weights.save(copy, found.params, found.config)
  assert again()[0] == 'done'
