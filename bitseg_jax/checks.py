"""What no run can do is said here, in one line, before anything is compiled."""

import pathlib
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from bitseg_jax import checkpoint, diffusion, palette, sampler, schedule
from bitseg_jax import codec as codecs
from bitseg_jax.data import transforms

LEAST = {
  'data.crop_aspect': 1,
  'data.num_threads': 1,
  'data.num_workers': 0,
  'train.batch_size': 1,
  'train.accumulate': 1,
  'train.fsdp': 1,
  'train.steps_per_call': 1,
  'train.num_steps': 1,
  'train.warmup_steps': 0,
  'train.decay_steps': 0,
  'train.log_every': 1,
  'train.eval_every': 1,
  'train.checkpoint_every': 1,
  'train.keep_checkpoints': 1,
  'sample.num_steps': 1,
  'eval.batch_size': 1,
  'eval.num_images': 0,
  'eval.num_samples': 1,
  'eval.during_training': 0,
  'diffusion.size_power': 0,
  'sample.time_difference': 0,
  'model.base_channels': 2,
  'model.num_res_blocks': 1,
  'model.num_heads': 1,
  'model.patch_size': 1,
}


def check(config: ConfigDict) -> None:
  """Raises ValueError, one line, for settings that cannot work."""
  diff, data = config.diffusion, config.data
  one_of('data.source', data.source, ('tfds', 'procedural'))
  one_of('data.augment', data.augment, transforms.AUGMENTATIONS)
  one_of('codes.overflow', config.codes.overflow, palette.OVERFLOWS)
  one_of('diffusion.pred_type', diff.pred_type, diffusion.PRED_TYPES)
  one_of('diffusion.loss_weight', diff.loss_weight, schedule.LOSS_WEIGHTS)
  one_of('diffusion.loss', diff.loss, diffusion.LOSSES)
  one_of('model.dtype', config.model.dtype, ('float32', 'bfloat16'))
  one_of('sample.method', config.sample.method, sampler.METHODS)
  one_of('sample.variance', config.sample.variance, sampler.VARIANCES)
  if not config.eval.weights:
    raise ValueError("config.eval.weights is empty; give 'ema', 'raw' or both")
  for name in config.eval.weights:
    one_of('eval.weights', name, checkpoint.KINDS)
  for name, least in LEAST.items():
    section, key = name.split('.')
    if config[section][key] < least:
      raise ValueError(
        f'config.{name} is {config[section][key]}; it must be at least {least}'
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
  for level in model.attention_levels:
    if not 0 <= level < levels:
      raise ValueError(
        f'config.model.attention_levels names level {level}; there are levels '
        f'0 to {levels - 1}'
      )
  attended = [*model.attention_levels, -1] if model.attention_levels else []
  for level in attended:  # -1: the middle
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
  if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
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
  if names and data.source == 'procedural':
    raise ValueError('config.data.dirs needs config.data.source = tfds')
  weights = data.weights
  if weights and (len(weights) != len(names) or min(weights) <= 0):
    raise ValueError(
      f'config.data.weights are {tuple(weights)}; give one over 0 for each of '
      f'the {len(names)} config.data.dirs, or ()'
    )


def check_devices(name: str, batch_size: int, accumulate: int = 1) -> None:
  """Raises ValueError unless all devices get as much of each (micro)batch."""
  devices = jax.device_count()
  if batch_size % (devices * accumulate):
    times = f' times train.accumulate = {accumulate}' * (accumulate > 1)
    raise ValueError(
      f'config.{name} is {batch_size}, which {devices} devices{times} do not '
      f'divide; use a multiple of {devices * accumulate}'
    )


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
  """Raises ValueError unless the value of a setting is among the choices."""
  if value not in choices:
    raise ValueError(
      f'config.{name} is {value!r}; choose one of {", ".join(choices)}'
    )
