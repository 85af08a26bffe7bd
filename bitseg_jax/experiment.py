"""From a config to the parts of a run; what cannot work is said here.

Below this floor nothing knows of configs: functions take plain values.
"""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax import codec as codecs
from bitseg_jax import diffusion, palette, sampler, schedule, sharding
from bitseg_jax.data import builder, transforms
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.models.unet import UNet

LEAST = {
  'data.crop_aspect': 1,
  'data.num_threads': 1,
  'data.num_workers': 0,
  'train.batch_size': 1,
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
  'model.base_channels': 2,
  'model.num_res_blocks': 1,
  'model.num_heads': 1,
  'model.patch_size': 1,
}


class Experiment(NamedTuple):
  """The parts that a config describes.

  Attributes:
    image_size: side S of the padded square.
    schedule: noise schedule.
    codec: codes <-> channels.
    palette: int [S, S], or None.
    model: the network.
    denoise: (params, z_t, image, t) -> x_hat, see diffusion.make_denoiser.
  """

  image_size: int
  schedule: schedule.Schedule
  codec: codecs.Codec
  palette: np.ndarray | None
  model: UNet
  denoise: Callable[..., jax.Array]

  def init_params(self, key: jax.Array) -> Any:
    """Draws the initial parameters."""
    z_t = jnp.zeros((1, self.image_size, self.image_size, self.codec.channels))
    return self.model.init(key, z_t, z_t[..., :1].repeat(3, -1), jnp.zeros(1))[
      'params'
    ]


def build(config: ConfigDict) -> Experiment:
  """Builds the parts of a config.

  Raises:
    ValueError: if the settings contradict each other, one clear line.
  """
  check(config)
  codec = codecs.make_codec(config.codes.encoding, config.codes.num_codes)
  noise = schedule.Schedule(
    config.diffusion.schedule, config.diffusion.input_scale
  )
  model = UNet(
    out_channels=codec.channels,
    base_channels=config.model.base_channels,
    channel_mults=tuple(config.model.channel_mults),
    num_res_blocks=config.model.num_res_blocks,
    attention_levels=tuple(config.model.attention_levels),
    num_heads=config.model.num_heads,
    patch_size=config.model.patch_size,
    dtype=jnp.dtype(config.model.dtype),
  )
  return Experiment(
    image_size=config.data.image_size,
    schedule=noise,
    codec=codec,
    palette=_palette(config.codes),
    model=model,
    denoise=diffusion.make_denoiser(
      lambda params, *args: model.apply({'params': params}, *args),
      noise,
      config.diffusion.pred_type,
      config.diffusion.tanh,
    ),
  )


def abstract_params(parts: Experiment, mesh: Mesh) -> Any:
  """Shapes, dtypes and shardings of the parameters, without making them."""
  shapes = jax.eval_shape(parts.init_params, jax.random.key(0))
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding.copied_on(mesh)
    ),
    shapes,
  )


def check(config: ConfigDict) -> None:
  """Raises ValueError, one line, for settings that cannot work."""
  diff, data = config.diffusion, config.data
  one_of('data.source', data.source, ('tfds', 'procedural'))
  one_of('data.augment', data.augment, transforms.AUGMENTATIONS)
  one_of('codes.overflow', config.codes.overflow, palette.OVERFLOWS)
  one_of('diffusion.pred_type', diff.pred_type, diffusion.PRED_TYPES)
  one_of('diffusion.loss_weight', diff.loss_weight, schedule.LOSS_WEIGHTS)
  one_of('model.dtype', config.model.dtype, ('float32', 'bfloat16'))
  one_of('sample.method', config.sample.method, sampler.METHODS)
  one_of('sample.variance', config.sample.variance, sampler.VARIANCES)
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
  codecs.make_codec(config.codes.encoding, config.codes.num_codes)
  _palette(config.codes)
  _check_model(config.model, data.image_size)
  _check_data(data)
  settings = config.train
  if settings.warmup_steps + settings.decay_steps > settings.num_steps:
    raise ValueError(
      f'config.train: warmup_steps ({settings.warmup_steps}) and decay_steps '
      f'({settings.decay_steps}) do not fit in num_steps '
      f'({settings.num_steps})'
    )


def _check_model(model, image_size):
  levels = len(model.channel_mults)
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


def check_devices(name: str, batch_size: int) -> None:
  """Raises ValueError unless all devices get as much of each batch."""
  devices = jax.device_count()
  if batch_size % devices:
    raise ValueError(
      f'config.{name} is {batch_size}, which {devices} devices do not divide; '
      f'use a multiple of {devices}'
    )


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
  """Raises ValueError unless the value of a setting is among the choices."""
  if value not in choices:
    raise ValueError(
      f'config.{name} is {value!r}; choose one of {", ".join(choices)}'
    )


def _palette(codes):
  if codes.palette == 'none':
    return None
  return palette.make_palette(
    codes.num_codes, codes.palette, codes.palette_seed
  )


def open_sources(
  config: ConfigDict, split: str
) -> dict[str, Sequence[dict[str, Any]]]:
  """Opens the records of a split, of each dataset there is.

  Args:
    config: the run's config.
    split: 'train' or 'eval'; the config names the datasets' own splits.

  Returns:
    Random-access records, see data/pipeline.py, by the dataset's name.

  Raises:
    ValueError or OSError, one line, if a dataset is not there.
  """
  data = config.data
  if data.source == 'procedural':
    # One stream, its head held out: no seed makes them overlap.
    scenes = ProceduralScenes(
      data.num_eval_scenes + data.num_scenes,
      data.image_size,
      data.max_entities,
      config.seed,
    )
    held_out = range(data.num_eval_scenes)
    rest = range(data.num_eval_scenes, len(scenes))
    subset = Subset(scenes, held_out if split == 'eval' else rest)
    return {'procedural': subset}
  name, wanted_side = data.eval_split, 0
  if split == 'train':
    # A part of the photo is enlarged to image_size.
    enlarged = (data.crop_aspect / min(data.crop_scale[0], 1)) ** 0.5
    name, wanted_side = data.train_split, math.ceil(data.image_size * enlarged)
  return {
    pathlib.Path(path).name: builder.open_split(path, name, wanted_side)
    for path in data.dirs or [data.dir]
  }


class Subset:
  """The records of a source at some indices."""

  def __init__(self, source: Sequence, indices: Sequence[int]):
    self._source = source
    self._indices = indices

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int) -> Any:
    return self._source[self._indices[index]]
