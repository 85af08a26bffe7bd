"""Configs: the paper's has the paper's values, and none says what is not so."""

import functools
import importlib
import inspect
import json
import math
import pathlib
import re

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from bitseg_jax.configs import base, main
from bitseg_jax.configs.sweeps import sizes
from bitseg_jax.runtime import experiment, schema

FOLDER = pathlib.Path(base.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob('[a-z]*.py'))
SWEEPS = sorted(
  p.stem for p in (FOLDER / 'sweeps').glob('[a-z]*.py') if p.stem != 'sizes'
)
# Christensen et al., NLDL 2026; what the paper leaves open is the authors'
# implementation's.
PAPER = {
  'data.image_size': 128,
  'data.augment': 'full',
  'data.crop_scale': (1.0, 1.0),  # no crop, no scale jitter
  'data.crop_aspect': 1.0,
  'codes.encoding': 'analog_bits',
  'codes.num_codes': 64,
  'codes.palette': 'similar',
  'diffusion.schedule': 'cosine',
  'diffusion.input_scale': 0.1,
  'diffusion.pred_type': 'x',
  'diffusion.tanh': True,
  'diffusion.loss': 'squared',
  'diffusion.loss_weight': 'sigmoid',
  'diffusion.loss_bias': -4.0,
  'diffusion.decoupled': True,
  'diffusion.size_power': 0.0,
  'diffusion.cond_drop_rate': 0.05,
  'diffusion.self_conditioning': False,
  'model.name': 'unet',
  'model.base_channels': 64,
  'model.channel_mults': (1, 2, 2, 4, 4),
  'model.num_res_blocks': 3,
  'model.attention_levels': (3, 4),
  'model.num_heads': 4,
  'model.patch_size': 1,
  'model.dtype': 'float32',
  'train.batch_size': 8,
  'train.num_steps': 300_000,
  'train.learning_rate': 1e-4,
  'train.warmup_steps': 1_000,
  'train.decay_steps': 50_000,
  'train.beta1': 0.9,
  'train.beta2': 0.999,
  'train.weight_decay': 0.0,
  'train.grad_clip': 1.0,
  'train.ema_decay': 0.9999,
  'sample.num_steps': 8,
  'sample.method': 'ddpm',
  'sample.variance': 'large',
  'sample.guidance_weight': 1.0,
  'sample.guidance_interval': (0.0, 1.0),
  'sample.time_difference': 0.0,
}


def get(config, name):
  for part in name.split('.'):
    config = config[part]
  return config


def put(config, name, value):
  """A copy of the config with a value that need not fit."""
  changed = config.to_dict()
  *sections, last = name.split('.')
  section = changed
  for part in sections:
    section = section[part]
  section[last] = value
  return ConfigDict(changed)


def every_setting(settings=base.SETTINGS, prefix=''):
  """(dotted name, Setting) of each."""
  for name, setting in settings.items():
    if isinstance(setting, schema.Setting):
      yield prefix + name, setting
    else:
      yield from every_setting(setting, f'{prefix}{name}.')


SETTINGS = dict(every_setting())


def read(name):
  return importlib.import_module(f'bitseg_jax.configs.{name}')


def count_params(config):
  """Parameters of a config's network, without making them."""
  return _count_params(config.model.to_json(), config.codes.num_codes)


@functools.cache
def _count_params(model, num_codes):
  config = base.get_config()
  config.model.update(json.loads(model))
  config.codes.num_codes = num_codes
  parts = experiment.build(config)
  shapes = jax.eval_shape(parts.init_params, jax.random.key(0))
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize('name', PAPER)
def test_the_papers_config_has_the_papers_value(name):
  value = get(main.get_config(), name)
  assert value == PAPER[name] and type(value) is type(PAPER[name])


def test_the_papers_network_has_38_496_262_parameters():
  assert count_params(main.get_config()) == 38_496_262


def test_the_papers_settings_reach_the_parts():
  parts = experiment.build(main.get_config())
  assert parts.codec.channels == 6
  assert parts.palette.shape == (8, 8)
  assert parts.palette[1, 2] == 0b001_011  # Gray codes of 1 and 2
  # A tenth of the data's size: 2 log 0.1 below the cosine's logsnr of 0.
  np.testing.assert_allclose(parts.schedule.logsnr(0.5), 2 * np.log(0.1), 1e-4)
  rate, optimizer = experiment.make_optimizer(main.get_config().train)
  steps = np.array([0, 500, 1_000, 249_999, 275_000, 300_000])
  np.testing.assert_allclose(
    rate(steps), [0, 5e-5, 1e-4, 1e-4, 5e-5, 0], atol=1e-9
  )
  params = {'w': np.full(3, 7, np.float32)}
  gradient = {'w': np.array([3.0, 0, 4.0], np.float32) * 100}
  _, state = optimizer.update(gradient, optimizer.init(params), params)
  first, second = (optax.tree.get(state, n)['w'] for n in ('mu', 'nu'))
  np.testing.assert_allclose(first, [0.1 * 0.6, 0, 0.1 * 0.8], 1e-5)
  np.testing.assert_allclose(second, [1e-3 * 0.36, 0, 1e-3 * 0.64], 1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_every_config_builds(name):
  experiment.build(read(name).get_config())


@pytest.mark.parametrize('size', sizes.SIZES)
@pytest.mark.parametrize('sweep', SWEEPS)
def test_every_row_of_every_sweep_builds_at_every_size(sweep, size):
  for settings in read(f'sweeps.{sweep}').ROWS.values():
    config = sizes.SIZES[size]()
    for name, value in settings.items():
      section, key = name.split('.')
      config[section][key] = value
    experiment.build(config)


# What the comments of configs and sizes say, and the setting that makes it so.
SAID = {
  r'at (\d+) px': 'data.image_size',
  r'(\d+) px, \d': 'data.image_size',
  r'batches of (\d+)': 'train.batch_size',
  r'patches of (\d+)': 'model.patch_size',
  r'^(\d+) codes': 'codes.num_codes',
  r'input\s+scale (\d[.]\d)': 'diffusion.input_scale',
  r'(\w+) palette': 'codes.palette',
  r'(\w+) loss weight': 'diffusion.loss_weight',
  r'(\w)-prediction': 'diffusion.pred_type',
  r'(\d+)k steps': 'train.num_steps',
  r'k steps of (\d+)': 'train.batch_size',
  r'(bfloat16)': 'model.dtype',
}
TOLD = {
  **{name: (read(name).__doc__, read(name).get_config) for name in NAMES},
  **{f'sweeps/{n}': (inspect.getdoc(f), f) for n, f in sizes.SIZES.items()},
}
del TOLD['base']  # its settings' meanings are told one by one


@pytest.mark.parametrize('name', TOLD)
def test_comments_of_configs_are_true(name):
  comment, get_config = TOLD[name]
  config = get_config()
  for pattern, setting in SAID.items():
    for said in re.findall(pattern, comment, re.MULTILINE):
      value = get(config, setting)
      value = value // 1_000 if setting == 'train.num_steps' else value
      assert said == str(value), f'{name}: {pattern} says {said}, not {value}'
  for said in re.findall(r'(\d+) analog bits', comment):
    assert 2 ** int(said) == config.codes.num_codes
  for said in re.findall(r'([\d.]+)M parameters', comment):
    assert said == f'{count_params(config) / 1e6:.1f}'


def test_the_comments_are_read():
  said = {
    p for p in SAID for text, _ in TOLD.values() if re.search(p, text, re.M)
  }
  assert said == set(SAID)


def test_one_network_where_a_comment_says_that_it_is_the_papers():
  model = main.get_config().model.to_dict()
  for name in ('bsds500', 'universal'):
    assert "paper's" in read(name).__doc__
    config = read(name).get_config()
    assert {**config.model.to_dict(), 'dtype': 'float32'} == model
    assert config.codes == main.get_config().codes
    assert config.diffusion == main.get_config().diffusion
  small = read('bsds500_small').get_config()
  assert read('universal_small').get_config().model == small.model


@pytest.mark.parametrize('name', SETTINGS)
def test_a_setting_refuses_what_it_cannot_be(name):
  setting = SETTINGS[name]
  config = base.get_config()
  schema.check(config, base.SETTINGS)  # its default is in range
  kind = setting.of or type(setting.default)
  wrong = [None, {}, b'x', *({} if kind is str else {'text': 0})]
  if kind is not bool:
    wrong.append(True)
  if kind in (int, float):
    assert setting.most is not None, 'a slip of the keyboard is not caught'
    assert setting.least is not None or setting.above is not None
    wrong += [math.nan, math.inf, -math.inf, setting.most * 1.01 + 1, -1e30]
    wrong += [10**400, -(10**400), 1j]
    if setting.least is not None:
      wrong.append(setting.least - 1)
    if setting.above is not None:
      wrong += [setting.above, setting.above - 1]
  if kind is int:
    wrong += [1.5, 2.0]
  if kind is str:
    wrong += [1, 1.5]
  if setting.choices:
    wrong.append('no such choice')
  if setting.of:
    count = setting.length or 1
    values = [(value,) * count for value in wrong]
    values += [0, 1.5, 'text', None]
    if setting.length:
      values += [(), (setting.default[0],) * (setting.length + 1)]
    wrong = values
  for value in wrong:
    with pytest.raises(ValueError, match=f'config.{name} ') as caught:
      schema.check(put(config, name, value), base.SETTINGS)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', SETTINGS)
def test_a_setting_takes_the_ends_of_its_range(name):
  setting = SETTINGS[name]
  right = [b for b in (setting.least, setting.most) if b is not None]
  right += list(setting.choices or [])
  kind = setting.of or type(setting.default)
  for value in right:
    value = kind(value)
    value = (value,) * (setting.length or 1) if setting.of else value
    schema.check(put(base.get_config(), name, value), base.SETTINGS)
