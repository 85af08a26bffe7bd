"""Configs: the paper's is the paper's, all build, no wrong value passes."""

import importlib
import math
import pathlib

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bitseg_jax.configs import base
from bitseg_jax.configs import main as paper
from bitseg_jax.runs import build, schema

NAMES = sorted(
  path.stem for path in pathlib.Path(base.__file__).parent.glob('[a-z]*.py')
)

# Christensen et al., NLDL 2026, and where it is silent the official code.
PAPER = {
  'data': {'source': 'tfds', 'image_size': 128, 'code_size': 0}
  | {'augment': 'full', 'crop_scale': (1.0, 1.0), 'crop_aspect': 1.0},
  'codes': {'encoding': 'analog_bits', 'num_codes': 64, 'palette': 'similar'},
  'diffusion': {'schedule': 'cosine', 'input_scale': 0.1, 'pred_type': 'x'}
  | {'tanh': True, 'loss_weight': 'sigmoid', 'loss_bias': -4.0}
  | {'decoupled': True, 'cond_drop_rate': 0.05},
  'model': {'name': 'unet', 'base_channels': 64, 'num_res_blocks': 3}
  | {'channel_mults': (1, 2, 2, 4, 4), 'attention_levels': (3, 4)}
  | {'num_heads': 4, 'patch_size': 1, 'encoder': 'none', 'dtype': 'float32'},
  'train': {'batch_size': 8, 'draws': 1, 'num_steps': 300_000}
  | {'optimizer': 'adamw', 'learning_rate': 1e-4, 'warmup_steps': 1_000}
  | {'decay_steps': 50_000, 'beta1': 0.9, 'beta2': 0.999, 'weight_decay': 0.0}
  | {'grad_clip': 1.0, 'ema_decay': 0.9999},
  'sample': {'num_steps': 8, 'method': 'ddpm', 'variance': 'large'}
  | {'guidance_weight': 1.0},
  'eval': {'weights': ('ema', 'raw')},
}
PAPER = flatten_dict(PAPER, sep='.')
# What a run may choose without leaving the paper: folders, seeds, how often
# something is logged, and how the work is laid out.
FREE = """
seed init_from distill.teacher distill.teacher_steps
data.dir data.dirs data.weights data.train_split data.eval_split
data.num_threads data.num_workers data.num_scenes data.num_eval_scenes
data.max_entities codes.palette_seed codes.overflow
model.encoder_rate
model.encoder_width
train.accumulate train.fsdp train.log_every
train.eval_every train.checkpoint_every train.checkpoint_minutes
train.keep_checkpoints eval.batch_size eval.num_images eval.num_samples
eval.during_training eval.gallery_images
"""


def settings(section=base.SETTINGS, prefix=''):
  """Yields (dotted name, Setting) of every setting there is."""
  for name, setting in section.items():
    if isinstance(setting, schema.Setting):
      yield prefix + name, setting
    else:
      yield from settings(setting, f'{prefix}{name}.')


ALL = dict(settings())
KINDS = {name: s.of or type(s.default) for name, s in ALL.items()}
NUMERIC = [name for name, kind in KINDS.items() if kind in (int, float)]


def get(config, name):
  for part in name.split('.'):
    config = config[part]
  return config


def load(name):
  return importlib.import_module(f'bitseg_jax.configs.{name}').get_config()


def checked_with(name, value):
  """Checks the defaults with one value put in their place."""
  config = base.get_config().to_dict()
  *path, last = name.split('.')
  section = config
  for part in path:
    section = section[part]
  section[last] = value
  schema.check_ranges(config)


def as_value(setting, number):
  """The number as a value of the setting: a tuple of it where it is one."""
  return number if setting.of is None else (number,) * (setting.length or 1)


def test_the_papers_config_has_the_papers_values():
  config = paper.get_config()
  assert {name: get(config, name) for name in PAPER} == PAPER
  # Every setting is either the paper's or free: none is forgotten.
  assert sorted([*PAPER, *FREE.split()]) == sorted(ALL)


def test_the_papers_network_has_the_papers_parameters():
  parts = build.build(paper.get_config())
  shapes = jax.eval_shape(parts.init_params, jax.random.key(0))
  count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  assert count == 38_496_262


@pytest.mark.parametrize('name', NAMES)
def test_every_config_builds(name):
  assert build.build(load(name)).image_size


def test_every_default_lies_in_its_range():
  schema.check_ranges(base.get_config())
  for name, setting in ALL.items():
    assert setting.meaning, name
    both = None not in setting.bounds
    assert name not in NUMERIC or both, name  # so neither nan nor inf passes
    if setting.of is not None:
      assert isinstance(setting.default, tuple), name


@pytest.mark.parametrize('name', NUMERIC)
def test_no_wrong_number_passes(name):
  setting, kind = ALL[name], KINDS[name]
  wrong = [np.nan, np.inf, -np.inf, 'eight', None, True, [[1]], {}, 1j]
  wrong += [1.5] if kind is int else []
  for bound, toward in zip(setting.bounds, (-math.inf, math.inf), strict=True):
    if bound is not None and kind is int:
      wrong.append(int(bound + math.copysign(1, toward)))
    elif bound is not None:
      wrong.append(math.nextafter(bound, toward))
  for value in wrong:
    with pytest.raises(ValueError, match=rf'config\.{name}') as caught:
      checked_with(name, as_value(setting, value))
    assert '\n' not in str(caught.value)
  for bound in setting.bounds:  # the ends are allowed
    if bound is not None:
      checked_with(name, as_value(setting, kind(bound)))


@pytest.mark.parametrize('name', sorted(set(ALL) - set(NUMERIC)))
def test_no_wrong_text_or_flag_passes(name):
  setting = ALL[name]
  wrong = [1, 2.5, None, {}]
  wrong += ['unheard of'] if setting.choices or setting.default is True else []
  for value in wrong:
    with pytest.raises(ValueError, match=rf'config\.{name}'):
      checked_with(name, as_value(setting, value))
  for choice in setting.choices or ():
    checked_with(name, as_value(setting, choice))


@pytest.mark.parametrize('name', [n for n, s in ALL.items() if s.of])
def test_a_tuple_is_one_and_has_its_length(name):
  too_many = [ALL[name].default * 2] if ALL[name].length else []
  for value in (1, 'ab', *too_many):
    with pytest.raises(ValueError, match=rf'config\.{name}'):
      checked_with(name, value)


def test_no_section_or_setting_may_be_missing_or_unknown():
  config = base.get_config().to_dict()
  del config['train']['ema_decay']
  with pytest.raises(ValueError, match=r'config\.train\.ema_decay is missing'):
    schema.check_ranges(config)
  config = base.get_config().to_dict() | {'trian': {}}
  with pytest.raises(ValueError, match=r'config\.trian is no setting'):
    schema.check_ranges(config)
  with pytest.raises(ValueError, match=r'config\.train is no setting'):
    checked_with('train', 3)
