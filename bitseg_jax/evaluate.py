"""Evaluation: samples for every image, scores, results JSON, gallery."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax import (
  checkpoint,
  checks,
  experiment,
  metrics,
  sampler,
  sharding,
  viz,
)
from bitseg_jax.data import pipeline, transforms
from bitseg_jax.writers import progress_bar, write_json

KINDS = {'ema_params': 'ema', 'params': 'raw'}


class Scores(NamedTuple):
  """Scores of every sample, and some samples to look at.

  Attributes:
    names: M image names.
    ari: float [M, N], mean over annotators, one column a sample.
    iou: float [M, N], likewise.
    samples: of some of this process's images, by index: int32 [N, S, S].
  """

  names: list[str]
  ari: np.ndarray
  iou: np.ndarray
  samples: dict[int, np.ndarray]


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


def score_samples(
  sample_fn: Callable[..., jax.Array],
  params: Any,
  decode: Callable[..., Any],
  source: Sequence[dict[str, Any]],
  image_size: int,
  mesh: Mesh,
  batch_size: int,
  num_images: int = 0,
  num_samples: int = 1,
  num_shown: int = 0,
  seed: int = 0,
  description: str = 'eval',
) -> Scores:
  """Samples and scores the first images of a source, over all processes.

  Sample n of image i depends on (seed, i, n) alone.

  Args:
    sample_fn: as from make_sample_fn.
    params: parameters for it.
    decode: x_hat -> codes.
    source: records.
    image_size, mesh: side S; devices.
    batch_size: images a batch; the last is filled up, which does not count.
    num_images, num_samples: images, 0 for all; samples an image, N.
    num_shown: keep the samples of this many first images.
    seed, description: of the samples; of the progress bar.

  Returns:
    The scores, the same on every process.
  """
  total = min(num_images or len(source), len(source))
  values = np.zeros((2, total, num_samples))
  names, samples = np.zeros((total, 200), np.uint8), {}
  progress = progress_bar(total * num_samples, description, 'sample')
  rows = _local_rows(batch_size)
  for start in range(0, total, batch_size):
    mine = range(start + rows.start, min(start + rows.stop, total))
    examples = [
      pipeline.evaluation_example(source[i], image_size) for i in mine
    ]
    batch = _fill(examples, len(rows), image_size, mesh)
    decoded = []
    for n in range(num_samples):
      keys = _sample_keys(seed, start, n, batch_size, mesh)
      x_hat = np.asarray(sample_fn(params, *batch, keys))
      decoded.append(decode(x_hat[rows.start :][: len(mine)]))
      progress.update(min(batch_size, total - start))
    for row, (i, example) in enumerate(zip(mine, examples, strict=True)):
      drawn = np.stack([codes[row] for codes in decoded])
      values[:, i] = _mean_scores(example['id_maps'], drawn)
      name = example['name'].encode()[:200]
      names[i, : len(name)] = list(name)
      if i < num_shown:
        samples[i] = drawn
  progress.close()
  values, names = _over_processes(values), _over_processes(names)
  names = [bytes(name).rstrip(b'\0').decode(errors='ignore') for name in names]
  return Scores(names, *values, samples)


def _over_processes(rows):
  """All rows, where every process has filled in its own and left others 0."""
  if jax.process_count() == 1:
    return rows
  return multihost_utils.process_allgather(rows).sum(axis=0, dtype=rows.dtype)


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


def _mean_scores(id_maps, samples):
  """(ARI, IoU) of every sample, averaged over annotators: [2, N]."""
  each = [[metrics.scores(a, b) for b in samples] for a in id_maps]
  return [
    np.mean([[s[name] for s in row] for row in each], axis=0)
    for name in ('ari', 'iou')
  ]


def summarize(scores: Scores) -> dict[str, float]:
  """Means over images: of all samples, and of the best one (an oracle).

  Returns:
    ari, iou: mean over images and samples. With several samples also
    ari_oracle_best_of_N and iou_oracle_best_of_N, which look at the truth.
    Images without a valid pixel are left out.
  """
  summary = {}
  for name in ('ari', 'iou'):
    values = getattr(scores, name)
    values = values[~np.isnan(values).any(axis=1)]
    summary[name] = float(np.mean(values)) if len(values) else None
    if values.shape[1] > 1 and len(values):
      oracle = f'{name}_oracle_best_of_{values.shape[1]}'
      summary[oracle] = float(np.mean(np.max(values, axis=1)))
  return summary


def draw_gallery(
  source: Sequence[dict[str, Any]],
  scores: Scores,
  image_size: int,
  path: str | pathlib.Path,
) -> None:
  """Writes a PNG: photo, ground truth, samples in the truth's colours."""
  rows = []
  for i, samples in scores.samples.items():
    example = pipeline.evaluation_example(source[i], image_size)
    height, width = example['size']
    truth = example['id_maps'][0][:height, :width]
    colors = viz.entity_colors(truth)
    others = len(example['id_maps']) - 1
    row = [
      (example['image'][:height, :width], example['name']),
      (
        viz.colorize(truth, colors),
        f'1 of {others + 1} annotators' if others else '',
      ),
    ]
    for n, sample in enumerate(samples[:4]):
      matched = viz.match_ids(truth, sample[:height, :width])
      caption = f'ARI {scores.ari[i, n]:.2f}  IoU {scores.iou[i, n]:.2f}'
      row.append((viz.colorize(matched, colors), caption))
    rows.append(row)
  if rows:
    titles = [f'sample {n + 1}' for n in range(len(rows[0]) - 2)]
    viz.gallery(rows, path, ['photo', 'ground truth', *titles])


def evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
  """Evaluates the newest checkpoint of a workdir, EMA and raw weights.

  Writes <workdir>/results.json and <workdir>/gallery.png; of several datasets
  each on its own, to gallery_NAME.png and to results.json under datasets/NAME.

  Args:
    config: the run's config, see checkpoint.read_config.
    workdir: directory of the run.

  Returns:
    What results.json holds, without the scores of single images.

  Raises:
    FileNotFoundError: if there is no whole checkpoint, or no dataset.
  """
  workdir = pathlib.Path(workdir)
  parts = experiment.build(config)
  checks.check_devices('eval.batch_size', config.eval.batch_size)
  mesh = sharding.make_mesh()
  sources = experiment.open_sources(config, 'eval')
  sample_fn = make_sample_fn(parts, config.sample, mesh)
  abstract = experiment.abstract_params(parts, mesh)
  params = {}
  for kind, name in KINDS.items():
    step, params[name] = checkpoint.read_params(workdir, abstract, kind)
  found = {
    name: _evaluate_source(
      config,
      parts,
      sample_fn,
      params,
      source,
      mesh,
      workdir / (f'gallery_{name}.png' if len(sources) > 1 else 'gallery.png'),
    )
    for name, source in sources.items()
  }
  settings = {
    'num_samples': config.eval.num_samples,
    'sample': config.sample.to_dict(),
    'data': config.data.to_dict(),
  }
  if len(found) == 1:
    ((results, per_image),) = found.values()
    results = {'step': step, **results, **settings}
    whole = {**results, 'per_image': per_image}
  else:
    datasets = {name: results for name, (results, _) in found.items()}
    results = {'step': step, 'datasets': datasets, **settings}
    images = {name: {'per_image': per} for name, (_, per) in found.items()}
    both = {name: {**datasets[name], **images[name]} for name in datasets}
    whole = {**results, 'datasets': both}
  if jax.process_index() == 0:
    write_json(workdir / 'results.json', whole)
  return results


def _evaluate_source(config, parts, sample_fn, params, source, mesh, gallery):
  """(summaries by kind and num_images, EMA scores by image) of one dataset."""
  results, per_image = {}, {}
  for name in KINDS.values():
    scores = score_samples(
      sample_fn,
      params[name],
      parts.codec.decode,
      source,
      parts.image_size,
      mesh,
      config.eval.batch_size,
      config.eval.num_images,
      config.eval.num_samples,
      config.eval.gallery_images,
      config.seed,
      f'eval {name}',
    )
    results[name] = summarize(scores)
    if name == 'ema' and jax.process_index() == 0:
      draw_gallery(source, scores, parts.image_size, gallery)
      per_image = {
        image: {'ari': list(ari), 'iou': list(iou)}
        for image, ari, iou in zip(
          scores.names, scores.ari, scores.iou, strict=True
        )
      }
  return {**results, 'num_images': len(scores.ari)}, per_image


def format_results(results: dict[str, Any]) -> str:
  """A few lines for people."""
  lines = []
  for dataset, found in results.get('datasets', {'': results}).items():
    lines.append(
      f'{dataset + ", " if dataset else ""}step {results["step"]}, '
      f'{found["num_images"]} images, {results["num_samples"]} samples an image'
    )
    for name in KINDS.values():
      numbers = ', '.join(
        f'{key} {v:.4f}' for key, v in found[name].items() if v is not None
      )
      lines.append(f'  {name}: {numbers}')
  return '\n'.join(lines)
