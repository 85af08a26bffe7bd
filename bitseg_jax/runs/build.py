"""Builds the parts of a run from its config.

The method, models, metrics and data never see a config: they take plain values.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax import codec as codecs
from bitseg_jax import diffusion, palette, schedule
from bitseg_jax.configs import base
from bitseg_jax.data import pipeline
from bitseg_jax.data.ambiguous import AmbiguousScenes
from bitseg_jax.data.prepared import splits
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.models import MODELS
from bitseg_jax.runs import devices, schema, train_state


class Experiment(NamedTuple):
  """The parts of a run, built from its config.

  Attributes:
    image_size: side S of the padded square image, in pixels.
    schedule: noise schedule.
    codec: converts codes to channels and back.
    palette: int [G, G] with G^2 codes; None for random codes.
    model: the network, a Flax module.
    denoise: (params, z_t, image, t) -> x_hat, see diffusion.make_denoiser.
    self_conditioning: whether denoise takes x_before as well.
    sees_prompts: whether the image has C further channels: the encoded codes
      of known pixels, zeros elsewhere.
  """

  image_size: int
  schedule: schedule.Schedule
  codec: codecs.Codec
  palette: np.ndarray | None
  model: Any
  denoise: Callable[..., jax.Array]
  self_conditioning: bool = False
  sees_prompts: bool = False

  def init_params(self, key: jax.Array) -> Any:
    """Draws the initial float32 parameters of the network."""
    channels = self.codec.channels
    z_t, image = (
      jnp.zeros((1, self.image_size, self.image_size, count))
      for count in (
        channels * (1 + self.self_conditioning),
        3 + channels * self.sees_prompts,
      )
    )
    return self.model.init(key, z_t, image, jnp.zeros(1))['params']


def build(config: ConfigDict) -> Experiment:
  """Checks a config and builds the parts of the run that it describes.

  Raises:
    ValueError: in one line, if settings are invalid or contradict each other.
  """
  schema.check(config)
  codec = codecs.make_codec(config.codes.encoding, config.codes.num_codes)
  noise = schedule.Schedule(
    config.diffusion.schedule, config.diffusion.input_scale
  )
  model = make_network(config.model, codec.channels)
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
    self_conditioning=config.diffusion.self_conditioning,
    sees_prompts=config.diffusion.prompt_rate > 0,
  )


def make_network(settings: ConfigDict, out_channels: int) -> Any:
  """Builds the network that the `model` section of a config describes.

  The network is given every setting that it has an attribute for; the other
  settings belong to other networks.

  Args:
    settings: `model` section of a config.
    out_channels: number of output channels C, those of the codec.

  Returns:
    A Flax module of a class in models.MODELS.
  """
  network = MODELS[settings.name]
  values = {
    **settings.to_dict(),
    'out_channels': out_channels,
    'dtype': jnp.dtype(settings.dtype),
    'fused_attention': settings.fused_attention
    and jax.default_backend() == 'gpu',
  }
  attributes = {field.name for field in dataclasses.fields(network)}
  attributes -= {'name', 'parent'}  # Flax's own
  return network(**{k: v for k, v in values.items() if k in attributes})


def abstract_params(parts: Experiment, mesh: Mesh) -> Any:
  """Returns shapes, dtypes and shardings of the parameters, without values."""
  shapes = jax.eval_shape(parts.init_params, jax.random.key(0))
  return devices.placed(shapes, mesh)


def training_batches(
  config: ConfigDict,
  sources: Sequence,
  codes: np.ndarray | None,
  mesh: Mesh,
  start: int = 0,
) -> grain.IterDataset:
  """Builds this process's stream of batches of a run.

  Args:
    config: the run's config.
    sources: records to train on, see open_sources.
    codes: the palette.
    mesh: devices, which say what rows are this process's.
    start: number of the first batch: the steps that the run has taken.

  Returns:
    The stream, see pipeline.training_batches.
  """
  return pipeline.training_batches(
    sources,
    pipeline.TrainingExample(
      image_size=config.data.image_size,
      num_codes=config.codes.num_codes,
      palette=codes,
      overflow=config.codes.overflow,
      augment=config.data.augment,
      crop_scale=tuple(config.data.crop_scale),
      crop_aspect=config.data.crop_aspect,
      paste_rate=config.data.paste_rate,
    ),
    config.train.batch_size,
    config.seed,
    tuple(config.data.weights),
    config.data.num_threads,
    config.data.num_workers,
    devices.local_rows(mesh, config.train.batch_size),
    start,
  )


def make_optimizer(
  settings: ConfigDict,
) -> tuple[optax.Schedule, optax.GradientTransformation]:
  """Returns (step -> learning rate, optimizer) for the `train` section."""
  learning_rate = train_state.learning_rate_schedule(
    settings.learning_rate,
    settings.num_steps,
    settings.warmup_steps,
    settings.decay_steps,
  )
  return learning_rate, train_state.make_optimizer(
    learning_rate,
    settings.beta1,
    settings.beta2,
    settings.weight_decay,
    settings.grad_clip,
    settings.optimizer,
  )


def make_state(
  parts: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[Callable[[jax.Array], train_state.TrainState], Any]:
  """Prepares the initial training state of a run and its place on the devices.

  Returns:
    (init, abstract): init is a compiled function from a PRNG key to the state
    of step 0; abstract holds the state's shapes, dtypes and shardings.
  """
  init = lambda key: train_state.create_state(parts.init_params(key), optimizer)
  abstract = devices.placed(jax.eval_shape(init, jax.random.key(0)), mesh)
  return jax.jit(init, out_shardings=devices.shardings(abstract)), abstract


def _palette(codes):
  if codes.palette == 'none':
    return None
  return palette.make_palette(
    codes.num_codes, codes.palette, codes.palette_seed
  )


def open_sources(
  config: ConfigDict, split: str
) -> dict[str, Sequence[dict[str, Any]]]:
  """Opens the records of one split of each dataset that a config names.

  Args:
    config: config of the run.
    split: 'train' or 'eval'; the config gives the datasets' names for them.

  Returns:
    Random-access records by name of the dataset, see data/pipeline.py.

  Raises:
    ValueError, OSError: in one line, if a dataset is missing.
  """
  data = config.data
  if data.source != 'tfds':
    usual = base.SETTINGS['data']['dir'].default
    if data.dir != usual:
      raise ValueError(
        f'config.data.dir is {data.dir}, but config.data.source is '
        f'{data.source}, which reads no dataset; set config.data.source to '
        f'tfds, or leave dir at {usual}'
      )
    # Both splits share one stream, so that they never overlap.
    count = data.num_eval_scenes + data.num_scenes
    if data.source == 'procedural':
      settings = count, data.image_size, data.max_entities, config.seed
      scenes = ProceduralScenes(*settings)
    else:
      num_annotators = 1 if split == 'train' else 8
      settings = count, data.image_size, num_annotators, config.seed
      scenes = AmbiguousScenes(*settings)
    held_out = range(data.num_eval_scenes)
    rest = range(data.num_eval_scenes, count)
    subset = Subset(scenes, held_out if split == 'eval' else rest)
    return {data.source: subset}
  name, wanted_side = data.eval_split, 0
  if split == 'train':
    # Photos must be larger, because their crops are resized to image_size.
    enlarged = (data.crop_aspect / min(data.crop_scale[0], 1)) ** 0.5
    name, wanted_side = data.train_split, math.ceil(data.image_size * enlarged)
  return {
    pathlib.Path(path).name: splits.open_split(path, name, wanted_side)
    for path in data.dirs or [data.dir]
  }


def evaluated(
  saved: ConfigDict, given: ConfigDict, named: Collection[str] = ()
) -> ConfigDict:
  """Combines the config of a run with what its evaluation is asked for.

  Args:
    saved: config of the run.
    given: its sections `sample` and `eval` are taken, but for the steps and the
      guidance of a distilled model.
    named: settings that were named one by one, such as 'data.eval_split'; what
      they say of the data to score, and of a distilled model, is taken too.

  Returns:
    The config to evaluate with; `build` checks how it fits together.

  Raises:
    ValueError: in one line, if a value of given is out of its range.
  """
  schema.check_ranges(given)
  config = saved.copy_and_resolve_references()
  config.eval = given.eval
  config.sample = given.sample.copy_and_resolve_references()
  if saved.distill.teacher:  # a student knows its own steps only
    for name in ('num_steps', 'guidance_weight'):
      if f'sample.{name}' not in named:
        config.sample[name] = saved.sample[name]
  for name in ('source', 'dir', 'dirs', 'eval_split'):
    if f'data.{name}' in named:
      config.data[name] = given.data[name]
  if 'data.dir' in named and 'data.dirs' not in named:
    config.data.dirs = ()  # would count instead
  if 'data.dir' in named or 'data.dirs' in named:
    config.data.weights = ()  # of the run's own
  return config


def tell_scored(config: ConfigDict) -> str:
  """Says which data an evaluation scores, in one line."""
  data = config.data
  if data.source != 'tfds':
    return f'scored: held-out {data.source} scenes'
  return f'scored: {data.eval_split} of {", ".join(data.dirs or [data.dir])}'


def tell_overflow(config: ConfigDict) -> list[str]:
  """Says of which prepared datasets not every annotation fits the codes.

  Args:
    config: the run's config.

  Returns:
    One line for each training dataset with annotations of more entities than
    config.codes.num_codes; the smallest of these are merged.
  """
  if config.data.source != 'tfds':
    return []
  lines, num_codes = [], config.codes.num_codes
  for path in config.data.dirs or [config.data.dir]:
    split = splits.read_metadata(path)['splits'][config.data.train_split]
    share = 1 - splits.share_that_fits(split, num_codes)
    if share > 0:
      lines.append(
        f'{path}: {share:.1%} of the annotations have more than '
        f'{num_codes} entities (config.codes.num_codes); the smallest ones are '
        'merged into their neighbours'
      )
  return lines


class Subset:
  """The records of a source at the given indices, in that order."""

  def __init__(self, source: Sequence, indices: Sequence[int]):
    self._source = source
    self._indices = indices

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int) -> Any:
    return self._source[self._indices[index]]
