"""Evaluates a model: draws and scores samples, writes results and a gallery."""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax import metrics
from bitseg_jax.evaluation import draw_samples, ensembles, reports
from bitseg_jax.runs import build, checkpoint, devices
from bitseg_jax.runs.log import write_json


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


def score_samples(
  codes_fn: Callable[..., tuple[jax.Array, jax.Array]],
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
  with_ensembles: bool = False,
) -> Scores:
  """Samples and scores the first images of a source.

  Scoring runs beside the sampling of the next images. Each process scores the
  images that it drew, and all of them get all scores.

  Args:
    codes_fn: as from draw_samples.make_codes_fn.
    params: parameters for it.
    decode: x_hat -> codes, for encodings that are decoded on the host.
    source: records.
    image_size: side S of the padded square.
    mesh: devices.
    batch_size: images in a batch; the last is filled up, which does not count.
    num_images: images, 0 for all.
    num_samples: samples of each image, N.
    num_shown: keep the samples of this many first images.
    seed: of the samples.
    description: of the progress bar.
    with_ensembles: score what N samples give together as well.

  Returns:
    The scores, the same on every process.
  """
  total = min(num_images or len(source), len(source))
  drawn = draw_samples.draw(
    functools.partial(codes_fn, params),
    decode,
    source,
    image_size,
    mesh,
    batch_size,
    total,
    num_samples,
    seed,
    description,
  )

  return _score_all(drawn, total, num_samples, num_shown, with_ensembles)


def _score_all(drawn, total, num_samples, num_shown, with_ensembles):
  """Scores what comes out of draw_samples.draw, on threads beside it."""
  columns = ensembles.columns(num_samples) if with_ensembles else []
  values = np.zeros((2, total, num_samples))
  together = np.zeros((total, len(columns)))
  names, samples = np.zeros((total, 200), np.uint8), {}

  def score(i, example, codes):
    values[:, i] = _mean_scores(example['id_maps'], codes)
    if with_ensembles:
      together[i] = _score_together(codes, example)
    name = example['name'].encode()[:200]
    names[i, : len(name)] = list(name)

  with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    scored = []
    for i, example, codes in drawn:
      scored.append(pool.submit(score, i, example, codes))
      if i < num_shown:
        samples[i] = codes
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
  each = [[metrics.scores(a, b) for b in samples] for a in id_maps]
  return [
    np.mean([[s[name] for s in row] for row in each], axis=0)
    for name in ('ari', 'iou')
  ]


def _score_together(samples, example):
  """Scores the samples of an image as a set, without the padding."""
  height, width = example['size']
  seen = np.s_[..., :height, :width]
  return ensembles.score(samples[seen], [a[seen] for a in example['id_maps']])


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


def evaluate(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  output: str | pathlib.Path | None = None,
  plot_format: str = 'png',
) -> dict[str, Any]:
  """Evaluates the newest checkpoint of a run, with EMA and raw weights.

  Writes results.json, gallery.png and, for several samples, by_num_samples.png.
  Several datasets are evaluated separately: their pictures are gallery_NAME.png
  and so on, their results are in results.json under datasets/NAME.

  Args:
    config: config of the run, see checkpoint.read_config.
    workdir: directory of the run.
    output: directory to write to; None = the workdir.
    plot_format: of by_num_samples, one of pictures.PLOT_FORMATS.

  Returns:
    The content of results.json, without the scores of single images.

  Raises:
    FileNotFoundError: if there is no whole checkpoint, or no dataset.
  """
  output = pathlib.Path(output or workdir)
  parts = build.build(config)
  devices.check_devices('eval.batch_size', config.eval.batch_size)
  mesh = devices.make_mesh(config.train.fsdp)
  sources = build.open_sources(config, 'eval')
  codes_fn = draw_samples.make_codes_fn(parts, config.sample, mesh)
  abstract = build.abstract_params(parts, mesh)
  params = {}
  for name in config.eval.weights:
    step, params[name] = checkpoint.read_params(
      workdir, abstract, checkpoint.KINDS[name]
    )
  found = {
    name: _evaluate_source(
      config,
      parts,
      codes_fn,
      params,
      source,
      mesh,
      output,
      f'_{name}' if len(sources) > 1 else '',
      plot_format,
    )
    for name, source in sources.items()
  }
  settings = {
    'num_samples': config.eval.num_samples,
    'sample': config.sample.to_dict(),
    'data': config.data.to_dict(),
  }
  results, per_image = _combine(found)
  results = {'step': step, **results, **settings}
  if jax.process_index() == 0:
    write_json(output / 'results.json', _merge(results, per_image))
  return results


def _combine(found):
  """Combines what _evaluate_source returned for each dataset."""
  if len(found) == 1:
    ((results, per_image),) = found.values()
    return results, {'per_image': per_image}
  return (
    {'datasets': {name: results for name, (results, _) in found.items()}},
    {
      'datasets': {name: {'per_image': per} for name, (_, per) in found.items()}
    },
  )


def _merge(first, second):
  """Merges two nested dicts."""
  merged = {**first, **second}
  for name in first.keys() & second.keys():
    merged[name] = _merge(first[name], second[name])
  return merged


def _evaluate_source(
  config, parts, codes_fn, params, source, mesh, output, suffix, plot_format
):
  """Returns (results, scores of single images) of one dataset."""
  results, per_image, several = {}, {}, config.eval.num_samples > 1
  for name in config.eval.weights:
    scores = score_samples(
      codes_fn,
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
      several and name == config.eval.weights[0],
    )
    results[name] = summarize(scores)
    if name == config.eval.weights[0] and jax.process_index() == 0:
      reports.draw_gallery(
        source,
        scores.samples,
        scores.ari,
        scores.iou,
        parts.image_size,
        output / f'gallery{suffix}.png',
      )
      if several:
        by_count = ensembles.summarize(
          scores.ensembles, config.eval.num_samples
        )
        reports.draw_by_num_samples(
          by_count, output / f'by_num_samples{suffix}.{plot_format}'
        )
        results['by_num_samples'] = by_count
      per_image = {
        image: {'ari': list(ari), 'iou': list(iou)}
        for image, ari, iou in zip(
          scores.names, scores.ari, scores.iou, strict=True
        )
      }
  scored = ~np.isnan(scores.ari).any(axis=1)
  return {**results, 'num_images': int(scored.sum())}, per_image
