"""Samples of the diffusion for images, over devices and processes."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax import sampler
from bitseg_jax.data import pipeline, transforms
from bitseg_jax.runtime import experiment, sharding
from bitseg_jax.runtime.writers import progress_bar


def make_sample_fn(
  parts: experiment.Experiment, settings: ConfigDict, mesh: Mesh | None
) -> Callable[..., jax.Array]:
  """Compiles the sampler.

  Args:
    parts: the experiment.
    settings: the config's `sample` section.
    mesh: devices; batches are split over them. None: for export.

  Returns:
    sample_fn(params, image uint8 [B, S, S, 3], size int32 [B, 2], keys [B])
    -> x_hat float32 [B, S, S, C]; padding beyond size is held at 0.
  """

  def sample_fn(params, image, size, keys):
    along = jnp.arange(parts.image_size)
    valid = (along[:, None] < size[:, 0, None, None]) & (
      along < size[:, 1, None, None]
    )
    return sampler.sample(
      sampler.guided(
        parts.denoise,
        params,
        transforms.normalize_image(image),
        settings.guidance_weight,
        tuple(settings.guidance_interval),
      ),
      keys,
      (*valid.shape, parts.codec.channels),
      parts.schedule,
      num_steps=settings.num_steps,
      method=settings.method,
      variance=settings.variance,
      valid_mask=valid,
      time_difference=settings.time_difference,
      self_conditioning=parts.self_conditioning,
    )

  if mesh is None:
    return jax.jit(sample_fn)
  split = sharding.split_on(mesh)
  # Results on every device, so that any process can read its rows.
  return jax.jit(
    sample_fn,
    in_shardings=(None, split, split, split),  # parameters lie as they are
    out_shardings=sharding.copied_on(mesh),
  )


def to_host(x_hat: jax.Array) -> np.ndarray:
  """What a sampler drew, as numpy.

  Raises:
    ValueError: if it is not finite; decoded, it would pass for one segment.
  """
  x_hat = np.asarray(x_hat)
  if not np.isfinite(x_hat).all():
    raise ValueError(
      'the sampler drew values that are not finite: the weights are damaged or '
      'the model did not train; look at the loss in metrics.jsonl'
    )
  return x_hat


def draw(
  sample_fn: Callable[..., jax.Array],
  source: Sequence[dict[str, Any]],
  image_size: int,
  mesh: Mesh,
  batch_size: int,
  num_images: int,
  num_samples: int,
  seed: int,
  description: str,
) -> Iterator[tuple[int, dict[str, Any], list[np.ndarray]]]:
  """Samples the first images of a source, each process its share of them.

  Sample n of image i depends on (seed, i, n) alone.

  Args:
    sample_fn: (image, size, keys) -> x_hat, as from make_sample_fn.
    source: records.
    image_size, mesh: side S; devices.
    batch_size: images a batch; the last is filled up, which does not count.
    num_images, num_samples: images; samples an image, N.
    seed, description: of the samples; of the progress bar.

  Yields:
    For each image of this process: its index, its example as from
    pipeline.evaluation_example, x_hat float32 [S, S, C] of each sample.
  """
  progress = progress_bar(num_images * num_samples, description, 'sample')
  rows = _local_rows(batch_size)
  for start in range(0, num_images, batch_size):
    mine = range(start + rows.start, min(start + rows.stop, num_images))
    examples = [
      pipeline.evaluation_example(source[i], image_size) for i in mine
    ]
    batch = _fill(examples, len(rows), image_size, mesh)
    drawn = []
    for n in range(num_samples):
      keys = _sample_keys(seed, start, n, batch_size, mesh)
      drawn.append(to_host(sample_fn(*batch, keys))[rows.start :])
      progress.update(min(batch_size, num_images - start))
    for row, (i, example) in enumerate(zip(mine, examples, strict=True)):
      yield i, example, [x_hat[row] for x_hat in drawn]
  progress.close()


def _local_rows(batch_size):
  """Which rows of a batch are this process's."""
  rows = batch_size // jax.process_count()
  first = jax.process_index() * rows
  return range(first, first + rows)


def _fill(examples, rows, image_size, mesh):
  """Global (image, size) of a batch, filled up with blank rows."""
  image = np.zeros((rows, image_size, image_size, 3), np.uint8)
  size = np.ones((rows, 2), np.int32)
  for i, example in enumerate(examples):
    image[i], size[i] = example['image'], example['size']
  return sharding.put_batch((image, size), mesh)


@functools.partial(jax.jit, static_argnames=('count', 'mesh'))
def _sample_keys(seed, start, n, count, mesh):
  """Keys of sample n of the images start, start + 1, ...: [count]."""
  key = jax.random.fold_in(jax.random.key(seed), n)
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(
    start + jnp.arange(count)
  )
  return jax.lax.with_sharding_constraint(keys, sharding.split_on(mesh))
