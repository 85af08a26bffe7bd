"""Builds the parts of a run from its config.

The method, models, metrics and data never see a config: they take plain values.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax import codec as codecs
from bitseg_jax import diffusion, palette, schedule
from bitseg_jax.configs import base
from bitseg_jax.data.ambiguous import AmbiguousScenes
from bitseg_jax.data.prepared import splits
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.models import MODELS, encoder, layers
from bitseg_jax.runs import devices, schema, train_state


class Experiment(NamedTuple):
  """The parts of a run, built from its config."""

  image_size: int  # side S of the padded square that the network sees
  code_size: int  # side G of it as the codes divide it; divides S
  schedule: schedule.Schedule
  codec: codecs.Codec
  palette: np.ndarray | None  # int [K, K] with K^2 codes; None: random codes
  model: Any  # a Flax module
  # (params, image uint8 [B, S, S, 3]) -> seen [B, ...], once per photo.
  encode: Callable[[Any, jax.Array], jax.Array]
  # (params, z_t, seen, t) -> x_hat, see diffusion.make_denoiser.
  denoise: Callable[..., jax.Array]
  init_params: Callable[[jax.Array], Any]  # key -> float32 parameters


class Recipe(NamedTuple):
  """How a model learns, as training/step.py needs it."""

  draws: int = 1  # uses of each photo of a batch, with other times and noise
  cond_drop_rate: float = 0.05  # share of rows that learn without their photo
  loss_weight: Callable[..., jax.Array] = schedule.loss_weight  # (schedule, t)
  ema_decay: float = 0.9999  # final decay of the average of the parameters
  accumulate: int = 1  # parts that a batch is computed in
  # Steps that a student is sampled in, so the times it learns at; None: no one.
  num_times: int | None = None


class SamplerOptions(NamedTuple):
  """How samples are drawn: the section `sample` of a config."""

  num_steps: int = 8
  method: str = 'ddpm'
  variance: str = 'large'
  guidance_weight: float = 1.0  # 0 is off


def make_recipe(config: ConfigDict) -> Recipe:
  """Returns how the model of a config learns."""
  diff = config.diffusion
  weigh = functools.partial(
    schedule.loss_weight,
    kind=diff.loss_weight,
    bias=diff.loss_bias,
    decoupled=diff.decoupled,
  )
  return Recipe(
    draws=config.train.draws,
    cond_drop_rate=diff.cond_drop_rate,
    loss_weight=weigh,
    ema_decay=config.train.ema_decay,
    accumulate=config.train.accumulate,
    num_times=config.sample.num_steps if config.distill.teacher else None,
  )


def build(config: ConfigDict) -> Experiment:
  """Checks a config and builds the parts of the run that it describes.

  Raises:
    ValueError: in one line, if settings are invalid or contradict each other.
  """
  schema.check(config)
  codes, diff, size = config.codes, config.diffusion, config.data.image_size
  codec = codecs.make_codec(codes.encoding, codes.num_codes)
  order = codes.num_codes, codes.palette, codes.palette_seed
  noise = schedule.Schedule(diff.schedule, diff.input_scale)
  code_size = config.data.code_size or size
  model = make_network(config.model, codec.channels, code_size)
  has_encoder = isinstance(model, encoder.WithEncoder)

  def encode(params, image):
    if has_encoder:
      return model.apply({'params': params}, image, method='encode')
    return encoder.average_pool(layers.normalize_image(image), code_size)

  def init_params(key):
    image = jnp.zeros((1, size, size, 3))
    z_t = jnp.zeros((1, code_size, code_size, codec.channels))
    see = lambda m: m.encode(image) if has_encoder else encode(None, image)
    predict = lambda m, z_t, t: m(z_t, see(m), t)
    return model.init(key, z_t, jnp.zeros(1), method=predict)['params']

  return Experiment(
    image_size=size,
    code_size=code_size,
    schedule=noise,
    codec=codec,
    palette=None if codes.palette == 'none' else palette.make_palette(*order),
    model=model,
    encode=encode,
    denoise=diffusion.make_denoiser(
      lambda params, *args: model.apply({'params': params}, *args),
      noise,
      diff.pred_type,
      diff.tanh,
    ),
    init_params=init_params,
  )


def make_network(
  settings: ConfigDict, out_channels: int, code_size: int
) -> Any:
  """Builds the network of a config's section `model`, by its attributes."""
  network, dtype = MODELS[settings.name], jnp.dtype(settings.dtype)
  values = settings.to_dict() | {'out_channels': out_channels, 'dtype': dtype}
  del values['name']  # Flax has one of its own
  attributes = {field.name for field in dataclasses.fields(network)}
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
  """Puts the ImageNet weights of the encoder, if any, into new parameters."""
  if settings.encoder == 'none':
    return params
  place = lambda old, new: jax.device_put(new, old.sharding)
  state = encoder.read_imagenet(settings.encoder)
  trunk = encoder.from_pytorch(settings.encoder, state)
  trunk = jax.tree.map(place, params['eyes']['trunk'], trunk)
  return {**params, 'eyes': {**params['eyes'], 'trunk': trunk}}


def abstract_params(config: ConfigDict) -> Any:
  """Shapes and dtypes of the parameters of a config's network."""
  return jax.eval_shape(build(config).init_params, jax.random.key(0))


def training_batches(
  config: ConfigDict,
  sources: Sequence,
  codes: np.ndarray | None,
  mesh: Mesh,
  start: int = 0,
) -> Iterable[dict[str, np.ndarray]]:
  """Builds this process's stream of batches, see pipeline.training_batches.

  `codes` is the palette, and `start` the number of steps that were taken.
  """
  from bitseg_jax.data import pipeline  # only a training needs grain

  data, batch_size = config.data, config.train.batch_size
  example = pipeline.TrainingExample(
    image_size=data.image_size,
    num_codes=config.codes.num_codes,
    palette=codes,
    overflow=config.codes.overflow,
    augment=data.augment,
    crop_scale=tuple(data.crop_scale),
    crop_aspect=data.crop_aspect,
    code_size=data.code_size,
  )
  batches = pipeline.training_batches(
    sources,
    example,
    batch_size,
    config.seed,
    tuple(data.weights),
    data.num_threads,
    devices.local_rows(mesh, batch_size),
    start,
  )
  return pipeline.read_in_processes(batches, data.num_workers)


def make_optimizer(
  config: ConfigDict,
) -> tuple[optax.Schedule, optax.GradientTransformation]:
  """Returns (step -> learning rate, optimizer) of a run."""
  s, model = config.train, config.model
  learning_rate = train_state.learning_rate_schedule(
    s.learning_rate, s.num_steps, s.warmup_steps, s.decay_steps
  )
  return learning_rate, train_state.make_optimizer(
    learning_rate,
    s.beta1,
    s.beta2,
    s.weight_decay,
    s.grad_clip,
    s.optimizer,
    None if model.encoder == 'none' else model.encoder_rate,
  )


def make_state(
  parts: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[Callable[[jax.Array], train_state.TrainState], Any]:
  """Returns (key -> state of step 0, jitted; its shapes and shardings)."""
  init = lambda key: train_state.create_state(parts.init_params(key), optimizer)
  abstract = devices.placed(jax.eval_shape(init, jax.random.key(0)), mesh)
  begin = jax.jit(
    init,
    out_shardings=devices.shardings(abstract),
    compiler_options=devices.compiler_options(mesh, runs_once=True),
  )
  return begin, abstract


def open_sources(
  config: ConfigDict, split: str
) -> dict[str, Sequence[dict[str, Any]]]:
  """Opens records of the split 'train' or 'eval', by name of the dataset.

  Raises:
    ValueError, OSError: in one line, if a dataset is missing.
  """
  data, size = config.data, config.data.image_size
  if data.source != 'tfds':
    if data.dir != base.DATA['dir'].default:
      raise ValueError(
        f'config.data.dir is {data.dir}, but config.data.source is '
        f'{data.source}, which reads no dataset; set config.data.source to tfds'
      )
    import grain  # only a training needs it

    # Both splits share one stream, so that they never overlap.
    held_out = data.num_eval_scenes
    kind, most = ProceduralScenes, data.max_entities
    if data.source == 'ambiguous':  # most is then the number of annotators
      kind, most = AmbiguousScenes, 1 if split == 'train' else 8
    scenes = grain.MapDataset.source(
      kind(held_out + data.num_scenes, size, most, config.seed)
    )
    scenes = scenes[:held_out] if split == 'eval' else scenes[held_out:]
    return {data.source: scenes}
  name, wanted_side = data.eval_split, 0
  if split == 'train':
    # Photos must be larger, because their crops are resized to image_size.
    enlarged = (data.crop_aspect / min(data.crop_scale[0], 1)) ** 0.5
    name, wanted_side = data.train_split, math.ceil(size * enlarged)
  return {
    pathlib.Path(path).name: splits.open_split(path, name, wanted_side)
    for path in data.dirs or [data.dir]
  }


def evaluated(
  saved: ConfigDict, given: ConfigDict, named: Collection[str] = ()
) -> ConfigDict:
  """Returns the config of a run with what its evaluation is asked for.

  That is its sections `sample` and `eval`, and what was `named` of `data`, such
  as 'data.eval_split'. Steps and guidance of a student must be named, too.

  Raises:
    ValueError: in one line, if a value of given is out of its range.
  """
  schema.check_ranges(given)
  config = saved.copy_and_resolve_references()
  config.eval, config.sample = given.eval, given.sample
  config = config.copy_and_resolve_references()
  if saved.distill.teacher:  # a student knows its own steps only
    for name in ('num_steps', 'guidance_weight'):
      if f'sample.{name}' not in named:
        config.sample[name] = saved.sample[name]
  if {'data.dir', 'data.dirs'} & set(named):
    config.data.update(dirs=(), weights=())  # the run's own would count
  for name in ('source', 'dir', 'dirs', 'eval_split'):
    if f'data.{name}' in named:
      config.data[name] = given.data[name]
  return config
