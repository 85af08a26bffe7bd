"""Draws samples of the diffusion for images, on all devices and processes."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax import sampler
from bitseg_jax.data import pipeline, transforms
from bitseg_jax.evaluation import prompts
from bitseg_jax.runs import build, devices
from bitseg_jax.runs.log import progress_bar


class Progress(NamedTuple):
  """How far the drawing of samples is.

  Attributes:
    drawn: samples that are drawn.
    at_work: samples that are drawn now, all at once.
    total: samples in all.
    step: step of the sampler that those at work are in, from 1; 0 before.
    num_steps: steps of each sample.
  """

  drawn: int
  at_work: int
  total: int
  step: int
  num_steps: int


def make_sample_fn(
  parts: build.Experiment,
  settings: ConfigDict,
  mesh: Mesh | None,
  on_step: Callable[[], None] | None = None,
  steered: bool = False,
) -> Callable[..., jax.Array]:
  """Compiles the sampler of a trained model.

  Args:
    parts: parts of the run, as from build.build.
    settings: `sample` section of the config.
    mesh: devices over which batches are split; None = for export.
    on_step: called on the host when a step of the sampler begins.
    steered: whether sample_fn also takes known and start, codes int32 [B, S, S]
      that are -1 where nothing is known, and strength, see sampler.sample.

  Returns:
    sample_fn(params, image uint8 [B, S, S, 3], size int32 [B, 2], keys [B])
    -> x_hat float32 [B, S, S, C], which is 0 in the padding beyond size.
  """
  encode = parts.codec.encode
  guidance = settings.guidance_weight, tuple(settings.guidance_interval)

  def sample_fn(params, image, size, keys, *steering):
    along = jnp.arange(parts.image_size)
    valid = (along[:, None] < size[:, 0, None, None]) & (
      along < size[:, 1, None, None]
    )
    steer = None
    if steered:
      known, start, strength = steering
      steer = sampler.Steering(encode(known), encode(start), strength)
    seen = _seen(parts, image, steering[0] if steered else None)
    return sampler.sample(
      sampler.guided(parts.denoise, params, seen, *guidance),
      keys,
      (*valid.shape, parts.codec.channels),
      parts.schedule,
      num_steps=settings.num_steps,
      method=settings.method,
      variance=settings.variance,
      valid_mask=valid,
      time_difference=settings.time_difference,
      self_conditioning=parts.self_conditioning,
      on_step=on_step,
      steering=steer,
    )

  if mesh is None:
    return jax.jit(sample_fn)
  split = devices.split_on(mesh)
  # Every device holds all results, so that any process can read its rows.
  return jax.jit(
    sample_fn,
    # Parameters lie as they are.
    in_shardings=(None, *[split] * 3, *[split, split, None] * steered),
    out_shardings=devices.copied_on(mesh),
    compiler_options=devices.compiler_options(mesh),
  )


def _seen(parts, image, known):
  """What the network sees of photos: their pixels and, if it can, the marks."""
  seen = transforms.normalize_image(image)
  if not parts.sees_prompts:
    return seen
  nothing = jnp.full(image.shape[:3], -1)
  marks = nothing if known is None else prompts.widen(known)
  return jnp.concatenate([seen, parts.codec.encode(marks)], axis=-1)


def make_codes_fn(
  parts: build.Experiment, settings: ConfigDict, mesh: Mesh
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Compiles the sampler with the decoding of what it draws.

  Args:
    parts: the experiment.
    settings: the config's `sample` section.
    mesh: devices; batches are split over them.

  Returns:
    codes_fn(params, image, size, keys), see make_sample_fn -> (codes int16
    [B, S, S], finite bool [B]), rows split over the devices. Codes of encodings
    that are decoded on the host (RGB) come as x_hat float32 [B, S, S, C].
  """
  split = devices.split_on(mesh)
  sample_fn = make_sample_fn(parts, settings, None)

  def codes_fn(params, image, size, keys):
    x_hat = sample_fn(params, image, size, keys)
    finite = jnp.all(jnp.isfinite(x_hat), axis=(1, 2, 3))
    if parts.codec.on_device:
      return parts.codec.decode(x_hat).astype(jnp.int16), finite
    return x_hat, finite

  return jax.jit(
    codes_fn,
    in_shardings=(None, split, split, split),  # parameters lie as they are
    out_shardings=split,
    compiler_options=devices.compiler_options(mesh),
  )


def check_finite(finite: np.ndarray) -> None:
  """Checks that a sampler drew numbers.

  Args:
    finite: bool [...], whether each sample is finite.

  Raises:
    ValueError: if one is not; decoded, it would pass for a single segment.
  """
  if not np.all(finite):
    raise ValueError(
      'the sampler drew values that are not finite: the weights are damaged or '
      'the model did not train; look at the loss in metrics.jsonl'
    )


def to_host(x_hat: jax.Array) -> np.ndarray:
  """What a sampler drew, as numpy; see check_finite for what it raises."""
  x_hat = np.asarray(x_hat)
  check_finite(np.isfinite(x_hat))
  return x_hat


def draw(
  codes_fn: Callable[..., tuple[jax.Array, jax.Array]],
  decode: Callable[..., Any],
  source: Sequence[dict[str, Any]],
  image_size: int,
  mesh: Mesh,
  batch_size: int,
  num_images: int,
  num_samples: int,
  seed: int,
  description: str,
) -> Iterator[tuple[int, dict[str, Any], np.ndarray]]:
  """Samples the first images of a source; each process gets those it drew.

  Sample n of image i depends on (seed, i, n) alone. While the devices draw one
  batch, the images of the next are read and the caller has those of the last.

  Args:
    codes_fn: (image, size, keys) -> (codes or x_hat, finite), see
      make_codes_fn.
    decode: x_hat -> codes, for encodings that are decoded on the host.
    source: records.
    image_size: side S of the padded square.
    mesh: devices.
    batch_size: images in a batch; the last is filled up, which does not count.
    num_images: images.
    num_samples: samples of each image, N.
    seed: of the samples.
    description: of the progress bar.

  Yields:
    For each image of this process: its index, its example as from
    pipeline.evaluation_example, its codes int [N, S, S].
  """
  progress = progress_bar(num_images * num_samples, description, 'sample')
  rows = devices.local_rows(mesh, batch_size)
  read = functools.partial(_read, source, image_size, rows, num_images)

  def launch(start, examples):
    batch = _fill(examples, len(rows), image_size, mesh)
    return [
      codes_fn(*batch, _sample_keys(seed, start, n, batch_size, mesh))
      for n in range(num_samples)
    ]

  waiting = None
  with ThreadPoolExecutor(1) as reader:
    ahead = reader.submit(read, 0)
    for start in range(0, num_images, batch_size):
      found, examples = ahead.result()
      launched = found, examples, launch(start, examples)
      ahead = reader.submit(read, min(start + batch_size, num_images))
      if waiting:
        yield from _collect(*waiting, decode)
      progress.update(num_samples * min(batch_size, num_images - start))
      waiting = launched
    if waiting:
      yield from _collect(*waiting, decode)
  progress.close()


def _read(source, image_size, rows, num_images, start):
  """(indices, examples) of this process's images of the batch from `start`."""
  found = [start + row for row in rows.tolist() if start + row < num_images]
  return found, [
    pipeline.evaluation_example(source[i], image_size) for i in found
  ]


def _collect(found, examples, drawn, decode):
  """What `draw` yields of one batch, once the devices have drawn it."""
  parts = []
  for codes, finite in drawn:
    check_finite(devices.local_part(finite))
    parts.append(devices.local_part(codes))
  for row, (i, example) in enumerate(zip(found, examples, strict=True)):
    of_image = np.stack([part[row] for part in parts])
    yield i, example, decode(of_image) if of_image.ndim == 4 else of_image


def _fill(examples, rows, image_size, mesh):
  """Makes a global batch (image, size), filled up with blank rows."""
  image = np.zeros((rows, image_size, image_size, 3), np.uint8)
  size = np.ones((rows, 2), np.int32)
  for i, example in enumerate(examples):
    image[i], size[i] = example['image'], example['size']
  return devices.put_batch((image, size), mesh)


@functools.partial(jax.jit, static_argnames=('count', 'mesh'))
def _sample_keys(seed, start, n, count, mesh):
  """Makes keys for sample n of the images start, start + 1, ...: [count]."""
  key = jax.random.fold_in(jax.random.key(seed), n)
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(
    start + jnp.arange(count)
  )
  return jax.lax.with_sharding_constraint(keys, devices.split_on(mesh))
