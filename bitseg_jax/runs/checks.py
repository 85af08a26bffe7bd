"""Checks that the settings of a config fit together.

The range of each single setting is in configs/base.py.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from bitseg_jax import codec as codecs
from bitseg_jax import palette
from bitseg_jax.configs import base
from bitseg_jax.runs import schema


def check(config: ConfigDict) -> None:
  """Validates a config before anything is compiled.

  Args:
    config: config of a run.

  Raises:
    ValueError: one line that names the settings that cannot work.
  """
  schema.check(config, base.SETTINGS)
  diff, data = config.diffusion, config.data
  if not config.eval.weights:
    raise ValueError("config.eval.weights is empty; give 'ema', 'raw' or both")
  if not config.model.channel_mults:
    raise ValueError('config.model.channel_mults is empty; give one per level')
  least, most = config.sample.guidance_interval
  if least > most:
    raise ValueError(
      f'config.sample.guidance_interval is ({least}, {most}); give the least t '
      'first'
    )
  if diff.tanh and diff.pred_type != 'x':
    raise ValueError(
      'config.diffusion.tanh bounds the output to [-1, 1], which pred_type '
      f'{diff.pred_type!r} is not; set --config.diffusion.tanh=False'
    )
  if diff.loss == 'cross_entropy' and (
    not diff.tanh or config.codes.encoding == 'rgb'
  ):
    raise ValueError(
      "config.diffusion.loss = 'cross_entropy' takes x_hat for probabilities "
      'of bits: it needs tanh, and an encoding of -1 and +1'
    )
  codecs.make_codec(config.codes.encoding, config.codes.num_codes)
  if config.codes.palette != 'none':
    palette.make_palette(config.codes.num_codes, config.codes.palette)
  _check_model(config.model, data.image_size)
  _check_data(data)
  settings = config.train
  if settings.warmup_steps + settings.decay_steps > settings.num_steps:
    raise ValueError(
      f'config.train: warmup_steps ({settings.warmup_steps}) and decay_steps '
      f'({settings.decay_steps}) do not fit in num_steps '
      f'({settings.num_steps})'
    )
  for name in ('num_steps', 'log_every', 'eval_every', 'checkpoint_every'):
    if settings[name] % settings.steps_per_call:
      raise ValueError(
        f'config.train.{name} is {settings[name]}, no multiple of '
        f'steps_per_call = {settings.steps_per_call}'
      )


def without_paths(config: ConfigDict) -> dict[str, Any]:
  """Returns what of a run's config may leave the machine: no folder names.

  Args:
    config: of the run.

  Returns:
    Nested dict, as JSON gives it back; of datasets the last part of their path.
  """
  settings = json.loads(json.dumps(config.to_dict()))
  settings['init_from'] = ''
  distill = settings['distill']
  distill['teacher'] = pathlib.PurePath(distill['teacher']).name
  data = settings['data']
  data['dir'] = pathlib.PurePath(data['dir']).name
  data['dirs'] = [pathlib.PurePath(path).name for path in data['dirs']]
  return settings


def complete(saved: Mapping[str, Any]) -> ConfigDict:
  """Completes a saved config that an earlier version may have written.

  Settings that have been added since then take their defaults, which by
  convention leave an older run as it was.

  Args:
    saved: nested dict, as read from JSON.

  Returns:
    The config, checked.

  Raises:
    ValueError: one line that names the unknown or invalid setting.
  """
  config = base.get_config()
  _fill(config, saved, '')
  # An earlier version let a run keep a single one.
  config.train.keep_checkpoints = max(2, config.train.keep_checkpoints)
  check(config)
  return config


def _fill(config, saved, prefix):
  if not isinstance(saved, Mapping):
    raise ValueError(f'the saved config{prefix} is no section: {saved!r}')
  for name, value in saved.items():
    if name not in config:
      raise ValueError(
        f'the saved config has {prefix}.{name}, which this version does not '
        'know; it was written by a newer one'
      )
    if isinstance(config[name], ConfigDict):
      _fill(config[name], value, f'{prefix}.{name}')
    else:
      try:
        config[name] = tuple(value) if isinstance(value, list) else value
      except TypeError as error:
        raise ValueError(f'the saved config{prefix}: {error}') from error


# What may differ when a run goes on: where data lies, how fast it is computed,
# how long it trains, what is shown. All else makes it another run.
_FREE = {
  'init_from',
  'distill.teacher',
  'data.dir',
  'data.dirs',
  'data.num_threads',
  'data.num_workers',
  'data.eval_split',
  'model.remat',
  'model.fused_attention',
  'model.fold_columns',
  'train.num_steps',
  'train.decay_steps',
  'train.accumulate',
  'train.steps_per_call',
  'train.fsdp',
  'train.log_every',
  'train.eval_every',
  'train.checkpoint_every',
  'train.checkpoint_minutes',
  'train.keep_checkpoints',
}


def check_same_run(
  config: ConfigDict, saved: ConfigDict, workdir: str | pathlib.Path
) -> None:
  """Checks that a config is that of the run in a workdir, but for the free.

  Args:
    config: what is asked for.
    saved: config of the run that is there.
    workdir: where, for the message.

  Raises:
    ValueError: one line that names the setting that differs.
  """
  ours, theirs = (flatten_dict(c.to_dict(), sep='.') for c in (config, saved))
  names, before = (
    [pathlib.Path(d).name for d in c.data.dirs or [c.data.dir]]
    for c in (config, saved)
  )
  if config.data.source == 'tfds' and names != before:
    raise ValueError(
      f'{workdir} holds a run on {", ".join(before)}, not {", ".join(names)}; '
      'use another --workdir, or the same datasets in the same order, whose '
      'folders may lie elsewhere under the same names'
    )
  # A teacher may have moved, but a run with one learns something else.
  if bool(config.distill.teacher) != bool(saved.distill.teacher):
    raise ValueError(
      f'{workdir} holds a run with config.distill.teacher = '
      f'{saved.distill.teacher!r}, not {config.distill.teacher!r}; use another '
      '--workdir, or give a teacher only where the run has one'
    )
  # A student learns for the steps that it is sampled with.
  free = ('eval',) if saved.distill.teacher else ('eval', 'sample')
  for name, value in ours.items():
    if name in _FREE or name.split('.')[0] in free:
      continue
    if theirs[name] != value:
      raise ValueError(
        f'{workdir} holds a run with config.{name} = {theirs[name]}, not '
        f'{value}; use another --workdir, or the same setting to resume'
      )


def _check_model(model, image_size):
  levels = len(model.channel_mults)
  if model.fused_attention and model.dtype != 'bfloat16':
    raise ValueError(
      'config.model.fused_attention needs config.model.dtype = bfloat16, not '
      f'{model.dtype}'
    )
  factor = model.patch_size * 2 ** (levels - 1)
  if image_size % factor:
    raise ValueError(
      f'config.data.image_size is {image_size}; with {levels} levels and '
      f'patches of {model.patch_size} it must be a multiple of {factor}'
    )
  deepest = levels - 1 if model.attention_levels else -1  # of the middle
  if model.fold_columns and 0 in (*model.attention_levels, deepest):
    raise ValueError(
      'config.model.fold_columns folds the first level, which may have no '
      'attention'
    )
  if model.fold_columns and image_size // model.patch_size % 2:
    raise ValueError(
      'config.model.fold_columns needs an even number of columns, not '
      f'{image_size // model.patch_size}'
    )
  for level in model.attention_levels:
    if level >= levels:
      raise ValueError(
        f'config.model.attention_levels names level {level}; there are levels '
        f'0 to {levels - 1}'
      )
  attended = [*model.attention_levels, -1] if model.attention_levels else []
  for level in attended:  # -1 stands for the middle blocks
    width = model.base_channels * model.channel_mults[level]
    if width % model.num_heads:
      raise ValueError(
        f'config.model: attention on {width} channels cannot be split into '
        f'num_heads = {model.num_heads}'
      )
    head = width // model.num_heads
    if model.fused_attention and (head % 8 or head > 128):
      raise ValueError(
        'config.model.fused_attention takes heads of 8, 16, ..., 128 channels; '
        f'with num_heads = {model.num_heads} there are heads of {head}'
      )


def _check_data(data):
  scale = tuple(data.crop_scale)
  if scale[0] > scale[1]:
    raise ValueError(
      f'config.data.crop_scale is {scale}; give (least, most) area, such as '
      '(0.3, 1.0)'
    )
  names = [pathlib.Path(path).name for path in data.dirs]
  if len(set(names)) < len(names):
    raise ValueError(
      f'config.data.dirs are {", ".join(data.dirs)}; their last parts name the '
      'datasets and must differ'
    )
  if names and data.source != 'tfds':
    raise ValueError('config.data.dirs needs config.data.source = tfds')
  weights = data.weights
  if weights and len(weights) != len(names):
    raise ValueError(
      f'config.data.weights are {tuple(weights)}; give one over 0 for each of '
      f'the {len(names)} config.data.dirs, or ()'
    )
