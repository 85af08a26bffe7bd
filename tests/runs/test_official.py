"""Official state dicts: there and back bit for bit, and the same outputs."""

import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from bitseg_jax.configs import base, main
from bitseg_jax.runs import build, official, weights


def assert_same(tensors, others):
  assert tensors.keys() == others.keys()
  for name, tensor in tensors.items():
    assert others[name].dtype == np.float32
    assert tensor.shape == others[name].shape
    assert tensor.tobytes() == others[name].tobytes(), name


@pytest.fixture(scope='module')
def converted(official_model):
  """(official tensors, our parameters, config)."""
  tensors, config = official_model
  expected = build.abstract_params(config)
  return tensors, official.from_official(tensors, expected, config), config


def test_there_and_back_every_bit_is_the_same(converted, tmp_path):
  tensors, params, config = converted
  back = official.to_official(params, config)
  assert_same(tensors, back)
  assert all(w.flags.c_contiguous for w in back.values())
  official.write_file(tmp_path / 'official.safetensors', back)
  read = official.read_file(tmp_path / 'official.safetensors')
  assert_same(tensors, read)


def test_parameters_go_there_and_back_through_a_pretrained_folder(
  converted, tmp_path
):
  """tests/models/test_unet.py compares what they compute with golden values."""
  _, params, config = converted
  back = official.to_official(params, config)
  again = official.from_official(back, params, config)
  weights.save(tmp_path / 'ours', again, config, '', 'float32')
  read = weights.read(tmp_path / 'ours').params
  jax.tree.map(np.testing.assert_array_equal, read, params)


def test_any_levels_blocks_and_attention_have_names(converted):
  def names(mults, blocks, attended):
    config = base.get_config()
    config.data.image_size = 32
    config.model.update(
      base_channels=32,
      channel_mults=mults,
      num_res_blocks=blocks,
      attention_levels=attended,
    )
    params = build.abstract_params(config)
    pairs = official.official_names(flatten_dict(params, sep='/'), config)
    assert len(set(pairs.values())) == len(pairs)
    return pairs

  # The upsampling is the last module of its block, after the attention.
  assert names((1, 2), 1, (0,))['up_1/conv/bias'] == (
    'output_blocks.1.1.conv.bias'
  )
  assert names((1, 2), 1, (1,))['up_1/conv/bias'] == (
    'output_blocks.1.2.conv.bias'
  )
  some = names((1, 1, 2), 2, (0, 2))
  assert some['down_2_1_attn/qkv/kernel'] == 'input_blocks.8.1.qkv.weight'
  assert some['up_0_0_attn/norm/scale'] == 'output_blocks.6.1.norm.weight'


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits_are_taken_as_they_are(converted, dtype):
  tensors, params, config = converted
  short = {name: w.astype(dtype) for name, w in tensors.items()}
  ours = official.from_official(short, params, config)
  exact = {name: w.astype(np.float32) for name, w in short.items()}
  assert_same(exact, official.to_official(ours, config))


def test_what_does_not_fit_is_named(converted):
  tensors, params, config = converted

  def refuse(message, **changes):
    changed = {
      **tensors,
      **{k.replace('__', '.'): w for k, w in changes.items()},
    }
    changed = {name: w for name, w in changed.items() if w is not None}
    with pytest.raises(ValueError, match=message) as caught:
      official.from_official(changed, params, config, 'FILE')
    assert '\n' not in str(caught.value) and 'FILE' in str(caught.value)

  bias = tensors['out.3.bias']
  refuse('tensor out.3.bias is missing', out__3__bias=None)
  refuse('tensor label.weight is none that', label__weight=bias)
  refuse(r'tensor out.3.bias has shape \[2\]', out__3__bias=bias[:2])
  refuse('out.3.bias is float64', out__3__bias=bias.astype(np.float64))
  refuse('out.3.bias has values that are', out__3__bias=bias + np.nan)


@pytest.mark.parametrize(
  ('section', 'name', 'value'),
  [
    ('model', 'patch_size', 2),
    ('model', 'attention_levels', ()),
    ('model', 'encoder', 'lite0'),
  ],
)
def test_networks_that_the_official_code_lacks_are_refused(
  section, name, value
):
  config = base.get_config()
  config[section][name] = value
  with pytest.raises(ValueError, match=f'config.{section}.{name} is'):
    official.check_config(config)


def test_a_file_must_hold_one_state_dict(converted, tmp_path):
  tensors, *_ = converted
  path, first = tmp_path / 'some.safetensors', 'time_embed.0.weight'
  w = tensors[first]
  safetensors.numpy.save_file({f'ema_0.9999.module.{first}': w, 'a': w}, path)
  assert_same({first: w}, official.read_file(path))
  for flat in {'a': w}, {first: w, f'model.{first}': w}:
    safetensors.numpy.save_file(flat, path)
    with pytest.raises(ValueError, match='must hold one official state dict'):
      official.read_file(path)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match=r'some.safetensors: damaged'):
    official.read_file(path)
  for refused in path, tmp_path / 'official.pt':
    with pytest.raises(ValueError, match=r'a new file that ends in .safetens'):
      official.write_file(refused, {first: w})


def test_the_main_model_goes_there_and_back(tmp_path):
  config = main.get_config()
  expected = build.abstract_params(config)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda w: rng.standard_normal(w.shape, np.float32), expected
  )
  tensors = official.to_official(params, config)
  assert sum(w.size for w in tensors.values()) == 38_496_262
  back = official.from_official(tensors, expected, config)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(
      a.view(np.uint32), b.view(np.uint32)
    ),
    params,
    back,
  )


def test_files_of_torch_are_read_without_running_what_is_in_them(
  converted, tmp_path
):
  torch = pytest.importorskip('torch')
  tensors, *_ = converted
  state = {name: torch.from_numpy(w) for name, w in tensors.items()}
  path = tmp_path / 'official.pt'
  torch.save(state, path)
  assert_same(tensors, official.read_file(path))
  half = {name: w.bfloat16() for name, w in state.items()}
  torch.save({'ema': {'rate': half}, 'step': 7, 'rest': [1, None]}, path)
  short = {
    name: w.astype(ml_dtypes.bfloat16).astype(np.float32)
    for name, w in tensors.items()
  }
  assert_same(short, official.read_file(path))
  torch.save({'model': state, 'program': print}, path)
  with pytest.raises(ValueError, match='could run a program'):
    official.read_file(path)
  torch.save(state, path)
  path.write_bytes(path.read_bytes()[:5000])
  with pytest.raises(ValueError, match='damaged, or holds'):
    official.read_file(path)


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  (tmp_path / 'official.pth').touch()
  with pytest.raises(ImportError, match=r'pip install torch'):
    official.read_file(tmp_path / 'official.pth')
