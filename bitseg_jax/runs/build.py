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
from bitseg_jax.models import MODELS, encoder, layers
from bitseg_jax.runs import devices, schema, train_state


class Experiment(NamedTuple):
  """The parts of a run, built from its config.

  Attributes:
    image_size: side S of the padded square that the network sees, in pixels.
    code_size: side G of the same square as the codes divide it; divides S.
    schedule: noise schedule.
    codec: converts codes to channels and back.
    palette: int [K, K] with K^2 codes; None for random codes.
    model: the network, a Flax module.
    encode: (params, image uint8 [B, S, S, 3]) -> seen, float32 [B, ...]: what
      the network sees of photos, computed once for each.
    denoise: (params, z_t, seen, t) -> x_hat, see diffusion.make_denoiser.
    init_params: key -> the initial float32 parameters of the network.
  """

  image_size: int
  code_size: int
  schedule: schedule.Schedule
  codec: codecs.Codec
  palette: np.ndarray | None
  model: Any
  encode: Callable[[Any, jax.Array], jax.Array]
  denoise: Callable[..., jax.Array]
  init_params: Callable[[jax.Array], Any]


class Recipe(NamedTuple):
  """How a model learns, as training/step.py needs it.

  Attributes:
    draws: how often each photo of a batch is used, with other times and noise.
    cond_drop_rate: share of rows that learn without their photo.
    loss_weight: kind, bias and decoupled of schedule.loss_weight.
    ema_decay: final decay of the average of the parameters, in [0, 1).
    accumulate: number of parts that a batch is computed in.
    steps_per_call: steps that one call of the compiled program takes.
    num_times: of a student, how many steps it is sampled in, and so at how many
      times it learns; None for all others.
  """

  draws: int = 1
  cond_drop_rate: float = 0.05
  loss_weight: tuple[str, float, bool] = ('sigmoid', -4.0, True)
  ema_decay: float = 0.9999
  accumulate: int = 1
  steps_per_call: int = 1
  num_times: int | None = None


class SamplerOptions(NamedTuple):
  """How samples are drawn, as evaluation/draw_samples.py needs it.

  Attributes:
    num_steps: steps of the sampler.
    method, variance: see sampler.sample.
    guidance_weight: see diffusion.guided; 0 is off.
  """

  num_steps: int = 8
  method: str = 'ddpm'
  variance: str = 'large'
  guidance_weight: float = 1.0


def sampler_options(settings: ConfigDict) -> SamplerOptions:
  """Returns how samples are drawn, from the `sample` section of a config."""
  return SamplerOptions(**settings.to_dict())


def make_recipe(config: ConfigDict) -> Recipe:
  """Returns how the model of a config learns."""
  diff = config.diffusion
  return Recipe(
    draws=config.train.draws,
    cond_drop_rate=diff.cond_drop_rate,
    loss_weight=(diff.loss_weight, diff.loss_bias, diff.decoupled),
    ema_decay=config.train.ema_decay,
    accumulate=config.train.accumulate,
    steps_per_call=config.train.steps_per_call,
    num_times=config.sample.num_steps if config.distill.teacher else None,
  )


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
  size = config.data.image_size
  code_size = config.data.code_size or size
  model = make_network(config.model, codec.channels, code_size)
  has_encoder = isinstance(model, encoder.WithEncoder)

  def encode(params, image):
    if has_encoder:
      return model.apply({'params': params}, image, method='encode')
    return encoder.shrink(layers.normalize_image(image), code_size)

  def init_params(key):
    image = jnp.zeros((1, size, size, 3))
    z_t = jnp.zeros((1, code_size, code_size, codec.channels))
    see = lambda m: m.encode(image) if has_encoder else encode(None, image)
    predict = lambda m, z_t, t: m(z_t, see(m), t)
    return model.init(key, z_t, jnp.zeros(1), method=predict)['params']

  codes = None
  if config.codes.palette != 'none':
    codes = palette.make_palette(
      config.codes.num_codes, config.codes.palette, config.codes.palette_seed
    )
  return Experiment(
    image_size=size,
    code_size=code_size,
    schedule=noise,
    codec=codec,
    palette=codes,
    model=model,
    encode=encode,
    denoise=diffusion.make_denoiser(
      lambda params, *args: model.apply({'params': params}, *args),
      noise,
      config.diffusion.pred_type,
      config.diffusion.tanh,
    ),
    init_params=init_params,
  )


def make_network(
  settings: ConfigDict, out_channels: int, code_size: int
) -> Any:
  """Builds the network that the `model` section of a config describes.

  The network is given every setting that it has an attribute for; the other
  settings belong to other networks.

  Args:
    settings: `model` section of a config.
    out_channels: number of output channels C, those of the codec.
    code_size: side G of the codes, in pixels.

  Returns:
    A Flax module of a class in models.MODELS, behind an encoder if the config
    names one.
  """
  network, dtype = MODELS[settings.name], jnp.dtype(settings.dtype)
  values = {
    **settings.to_dict(),
    'out_channels': out_channels,
    'dtype': dtype,
    'fused_attention': settings.fused_attention
    and jax.default_backend() == 'gpu',
  }
  attributes = {field.name for field in dataclasses.fields(network)}
  attributes -= {'name', 'parent'}  # Flax's own
  denoiser = network(**{k: v for k, v in values.items() if k in attributes})
  if settings.encoder == 'none':
    return denoiser
  eyes = encoder.PhotoEncoder(
    settings.encoder,
    code_size,
    settings.patch_size,
    settings.encoder_width,
    frozen=settings.encoder_rate == 0,
    dtype=dtype,
  )
  return encoder.WithEncoder(eyes, denoiser)


def with_imagenet(params: Any, settings: ConfigDict) -> Any:
  """Puts the ImageNet weights of its encoder into new parameters.

  Args:
    params: of the network, as from Experiment.init_params.
    settings: `model` section of the config.

  Returns:
    The parameters; as they are for a network without an encoder.

  Raises:
    ImportError: the package of the weights is not installed.
  """
  if settings.encoder == 'none':
    return params
  trunk = encoder.read_imagenet(settings.encoder)
  place = lambda old, new: jax.device_put(new, old.sharding)
  trunk = jax.tree.map(place, params['eyes']['trunk'], trunk)
  return {**params, 'eyes': {**params['eyes'], 'trunk': trunk}}


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
  batches = pipeline.training_batches(
    sources,
    pipeline.TrainingExample(
      image_size=config.data.image_size,
      num_codes=config.codes.num_codes,
      palette=codes,
      overflow=config.codes.overflow,
      augment=config.data.augment,
      crop_scale=tuple(config.data.crop_scale),
      crop_aspect=config.data.crop_aspect,
      code_size=config.data.code_size,
    ),
    config.train.batch_size,
    config.seed,
    tuple(config.data.weights),
    config.data.num_threads,
    devices.local_rows(mesh, config.train.batch_size),
    start,
  )
  return pipeline.read_in_processes(batches, config.data.num_workers)


def make_optimizer(
  config: ConfigDict,
) -> tuple[optax.Schedule, optax.GradientTransformation]:
  """Returns (step -> learning rate, optimizer) of a run."""
  settings, model = config.train, config.model
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
    None if model.encoder == 'none' else model.encoder_rate,
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
    scenes, held_out = grain.MapDataset.source(scenes), data.num_eval_scenes
    scenes = scenes[:held_out] if split == 'eval' else scenes[held_out:]
    return {data.source: scenes}
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
