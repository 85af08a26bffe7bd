"""Evaluates a model: draws and scores samples, writes results and a gallery."""

import functools
import itertools
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax import metrics
from bitseg_jax.data import pipeline
from bitseg_jax.evaluation import draw_samples, ensembles, reports
from bitseg_jax.runs import build, checkpoint, devices
from bitseg_jax.runs.log import progress_bar, write_json


class Scores(NamedTuple):
  """Scores of the samples of M images, and some samples to look at.

  Attributes:
    names: M image names.
    ari: float [M, N] for N samples per image, mean over annotators.
    iou: float [M, N], likewise.
    samples: codes int32 [N, S, S] of some of this process's images, by index.
    ensembles: float [M, K], see ensembles.score; K is 0 if not asked for.
  """

  names: list[str]
  ari: np.ndarray
  iou: np.ndarray
  samples: dict[int, np.ndarray]
  ensembles: np.ndarray


class Options(NamedTuple):
  """What is scored: the `eval` section of a config, for one set of weights.

  Attributes:
    batch_size: samples drawn at once over all devices.
    num_images: images, 0 for all.
    num_samples: samples of each image, N.
    num_shown: keep the samples of this many first images.
    seed: of the samples.
    description: of the progress bar.
    with_ensembles: score what N samples give together as well.
  """

  batch_size: int
  num_images: int = 0
  num_samples: int = 1
  num_shown: int = 0
  seed: int = 0
  description: str = 'eval'
  with_ensembles: bool = False


def score_samples(
  functions: draw_samples.Functions,
  params: Any,
  parts: build.Experiment,
  source: Sequence[dict[str, Any]],
  mesh: Mesh,
  options: Options,
) -> Scores:
  """Samples and scores the first images of a source.

  Scoring runs beside the sampling of the next images. Each process scores the
  images that it drew, and all of them get all scores.

  Args:
    functions: as from draw_samples.make_functions.
    params: parameters for them.
    parts: of the run.
    source: records.
    mesh: devices.
    options: what is scored.

  Returns:
    The scores, the same on every process.
  """
  total = min(options.num_images or len(source), len(source))
  count = options.num_samples
  read = lambda i: pipeline.evaluation_example(
    source[i], parts.image_size, parts.code_size
  )
  jobs = draw_samples.Jobs(
    [functools.partial(read, i) for i in range(total)],
    [count] * total,
    options.seed,
  )
  columns = ensembles.columns(count) if options.with_ensembles else []
  values = np.zeros((2, total, count))
  together = np.zeros((total, len(columns)))
  names, samples = np.zeros((total, 200), np.uint8), {}

  def score(i, example, codes):
    values[:, i] = _mean_scores(example['id_maps'], codes)
    if columns:
      height, width = example['size']
      inside = np.s_[..., :height, :width]
      annotated = [id_map[inside] for id_map in example['id_maps']]
      together[i] = ensembles.score(codes[inside], annotated)
    name = example['name'].encode()[:200]
    names[i, : len(name)] = list(name)

  with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    scored, drawn = [], {}
    progress = progress_bar(total * count, options.description, 'sample')
    # Of few samples only so many as fill all devices.
    filled = -(-total * count // jax.device_count()) * jax.device_count()
    batch_size = min(options.batch_size, filled)
    for i, example, x_hat in draw_samples.draw(
      functions, params, jobs, mesh, batch_size
    ):
      codes = np.asarray(parts.codec.decode(x_hat))
      drawn[i] = np.concatenate([drawn.get(i, codes[:0]), codes])
      progress.update(len(codes) * jax.process_count())
      if len(drawn[i]) < count:
        continue
      codes = drawn.pop(i)
      scored.append(pool.submit(score, i, example, codes))
      if i < options.num_shown:
        samples[i] = codes
    progress.close()
    for future in scored:
      future.result()
  values, names, together = map(_over_processes, (values, names, together))
  names = [bytes(name).rstrip(b'\0').decode(errors='ignore') for name in names]
  return Scores(names, *values, samples, together)


def _over_processes(rows):
  """All rows, where every process has filled in its own and left others 0.

  They travel as bytes: JAX would round float64 to float32 on the way.
  """
  if jax.process_count() == 1:
    return rows
  gathered = multihost_utils.process_allgather(rows.view(np.uint8))
  return gathered.view(rows.dtype).sum(axis=0, dtype=rows.dtype)


def _mean_scores(id_maps, samples):
  """Returns ARI and IoU of every sample, averaged over annotators: [2, N]."""
  id_maps = ensembles.labelled(id_maps)
  if not id_maps:
    return np.full((2, len(samples)), np.nan)
  each = [[[*metrics.scores(a, b).values()] for b in samples] for a in id_maps]
  return np.mean(each, axis=0).T


def summarize(scores: Scores) -> dict[str, float]:
  """Averages scores over images: of all samples, and of the best one (oracle).

  Returns:
    ari, iou: mean over images and samples. With several samples also
    ari_oracle_best_of_N and iou_oracle_best_of_N, which look at the truth.
    Images without a valid pixel are left out; None if no image is left.
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


@devices.jax_defaults()
def evaluate(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  output: str | pathlib.Path | None = None,
) -> dict[str, Any]:
  """Evaluates the newest checkpoint of a run, with EMA and raw weights.

  Writes results.json and gallery.png. Several datasets are evaluated
  separately: their pictures are gallery_NAME.png, their results are in
  results.json under datasets/NAME.

  Args:
    config: config of the run, see checkpoint.read_config.
    workdir: directory of the run.
    output: directory to write to; None = the workdir.

  Returns:
    The content of results.json.

  Raises:
    FileNotFoundError: if there is no whole checkpoint, or no dataset.
  """
  output = pathlib.Path(output or workdir)
  parts = build.build(config)
  devices.check_devices('eval.batch_size', config.eval.batch_size)
  mesh = devices.make_mesh(config.train.fsdp)
  sources = build.open_sources(config, 'eval')
  functions = draw_samples.make_functions(
    parts, build.sampler_options(config.sample), mesh
  )
  abstract = build.abstract_params(parts, mesh)
  params, results = {}, {name: {} for name in sources}
  for kind in config.eval.weights:
    step, params[kind] = checkpoint.read_params(
      workdir, abstract, checkpoint.KINDS[kind]
    )
  first, several = config.eval.weights[0], config.eval.num_samples > 1
  for (name, source), kind in itertools.product(sources.items(), params):
    options = Options(
      config.eval.batch_size,
      config.eval.num_images,
      config.eval.num_samples,
      config.eval.gallery_images,
      config.seed,
      f'eval {kind}',
      several and kind == first,
    )
    scores = score_samples(
      functions, params[kind], parts, source, mesh, options
    )
    found = results[name]
    found[kind] = summarize(scores)
    if kind != first:
      continue
    each = zip(scores.names, scores.ari, scores.iou, strict=True)
    found['num_images'] = int((~np.isnan(scores.ari).any(axis=1)).sum())
    found['per_image'] = {
      image: {'ari': list(ari), 'iou': list(iou)} for image, ari, iou in each
    }
    if several:
      found['by_num_samples'] = ensembles.summarize(
        scores.ensembles, config.eval.num_samples
      )
    if jax.process_index() == 0:
      suffix = f'_{name}' if len(sources) > 1 else ''
      path = output / f'gallery{suffix}.png'
      reports.draw_gallery(source, scores, parts, path)
  alone = len(results) == 1
  results = {
    'step': step,
    **(results.popitem()[1] if alone else {'datasets': results}),
    'num_samples': config.eval.num_samples,
    'sample': config.sample.to_dict(),
    'data': config.data.to_dict(),
  }
  if jax.process_index() == 0:
    write_json(output / 'results.json', results)
  return results
