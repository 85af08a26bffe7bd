"""Evaluates a model: draws and scores samples, writes results and a gallery."""

import functools
import itertools
import json
import math
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
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import draw_samples, ensembles, pictures
from bitseg_jax.runs import build, checkpoint, devices
from bitseg_jax.runs.log import progress_bar, write_json


class Scores(NamedTuple):
  """Scores of N samples of each of M images, and some samples to look at.

  Attributes:
    images: M of {'name', and N floats for each name in metrics.names('table')},
      means over annotators, nan if nobody labelled anything. If asked for,
      'by_num_samples' too, see ensembles.score.
    samples: codes int32 [N, G, G] of some of this process's images, by index.
  """

  images: list[dict[str, Any]]
  samples: dict[int, np.ndarray]


class Options(NamedTuple):
  """What is scored: the `eval` section of a config, for one set of weights."""

  batch_size: int  # samples drawn at once over all devices
  num_images: int = 0  # 0: all
  num_samples: int = 1  # of each image, N
  num_shown: int = 0  # keep the samples of this many first images
  seed: int = 0  # of the samples
  description: str = 'eval'  # of the progress bar
  with_ensembles: bool = False  # score what N samples give together as well


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
  """
  total = min(options.num_images or len(source), len(source))
  count = options.num_samples
  read = lambda i: transforms.evaluation_example(
    source[i], parts.image_size, parts.code_size
  )
  examples = [functools.partial(read, i) for i in range(total)]
  jobs = draw_samples.Jobs(examples, [count] * total, options.seed)

  def score(example, codes):
    height, width = example['size']
    codes = codes[:, :height, :width]
    annotated = metrics.labelled(
      [id_map[:height, :width] for id_map in example['id_maps']]
    )
    names = metrics.names('table')
    found = dict.fromkeys(names, [math.nan] * count)
    if annotated:
      pairs = ensembles.score_pairs(codes, annotated)
      found = dict(zip(names, pairs.mean(axis=0).T.tolist(), strict=True))
      if options.with_ensembles:
        found['by_num_samples'] = ensembles.score(codes, annotated, pairs)
    return {'name': example['name'], **found}

  scored, drawn, samples = {}, {}, {}
  with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    progress = progress_bar(total * count, options.description, 'sample')
    # Of few samples only so many as fill all devices.
    filled = -(-total * count // jax.device_count()) * jax.device_count()
    batch_size = min(options.batch_size, filled)
    drawing = draw_samples.draw(functions, params, jobs, mesh, batch_size)
    for i, example, x_hat in drawing:
      codes = np.asarray(parts.codec.decode(x_hat))
      drawn[i] = np.concatenate([drawn.get(i, codes[:0]), codes])
      progress.update(len(codes) * jax.process_count())
      if len(drawn[i]) < count:
        continue
      codes = drawn.pop(i)
      scored[i] = pool.submit(score, example, codes)
      if i < options.num_shown:
        samples[i] = codes
    progress.close()
    found = {i: future.result() for i, future in scored.items()}
  found = _of_all_processes(found)
  return Scores([found[i] for i in range(total)], samples)


def _of_all_processes(found):
  if jax.process_count() == 1:
    return found
  text = np.frombuffer(json.dumps([*found.items()]).encode(), np.uint8)
  longest = multihost_utils.process_allgather(np.int32(len(text))).max()
  padded = np.pad(text, (0, longest - len(text)), constant_values=ord(' '))
  texts = multihost_utils.process_allgather(padded)
  return dict(itertools.chain(*(json.loads(bytes(text)) for text in texts)))


def summarize(scores: Scores) -> dict[str, float]:
  """Averages scores over images: of all samples, and of the best one (oracle).

  Returns:
    Of each name in metrics.names('table') the mean over images and samples, and
    with several samples NAME_oracle_best_of_N, which looks at the truth. Images
    without a valid pixel are left out; None if no image is left.
  """
  summary = {}
  for name in metrics.names('table'):
    values = np.array([image[name] for image in scores.images])
    values = values[~np.isnan(values).any(axis=1)]
    summary[name] = float(np.mean(values)) if len(values) else None
    if values.shape[1] > 1 and len(values):
      best = np.max if metrics.SCORES[name].higher_is_better else np.min
      oracle = f'{name}_oracle_best_of_{values.shape[1]}'
      summary[oracle] = float(np.mean(best(values, axis=1)))
  return summary


def draw_gallery(
  source: Sequence[dict[str, Any]],
  scores: Scores,
  parts: build.Experiment,
  path: str | pathlib.Path,
) -> None:
  """Writes a PNG: photo, ground truth, samples in the truth's colours.

  `source` are the records of the images that have scores, and samples in them.
  """
  rows = []
  sides = parts.image_size, parts.code_size
  zoom = parts.image_size // parts.code_size
  for i, samples in scores.samples.items():
    example = transforms.evaluation_example(source[i], *sides)
    height, width = example['size']
    photo = example['image'][: zoom * height, : zoom * width]
    truth = example['id_maps'][0][:height, :width]
    colors = pictures.entity_colors(truth)
    count = len(example['id_maps'])
    caption = f'1 of {count} annotators' if count > 1 else ''
    painted = pictures.colorize(truth, colors)
    row = [(photo, example['name']), (painted, caption)]
    for n, sample in enumerate(samples[:4]):
      matched = pictures.match_ids(truth, sample[:height, :width])
      of_image = scores.images[i]
      caption = f'ARI {of_image["ari"][n]:.2f}  IoU {of_image["iou"][n]:.2f}'
      row.append((pictures.colorize(matched, colors), caption))
    rows.append(row)
  if rows:
    titles = [f'sample {n + 1}' for n in range(len(rows[0]) - 2)]
    pictures.gallery(rows, path, ['photo', 'ground truth', *titles])


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
    config: of the run, see checkpoint.read_config.
    workdir, output: folders of the run and of what is written; None: the same.

  Returns:
    The content of results.json.

  Raises:
    FileNotFoundError: if there is no whole checkpoint, or no dataset.
  """
  output = pathlib.Path(output or workdir)
  parts = build.build(config)
  devices.check_devices('eval.batch_size', config.eval.batch_size)
  mesh = devices.make_mesh(math.gcd(config.train.fsdp, jax.device_count()))
  sources = build.open_sources(config, 'eval')
  functions = draw_samples.make_functions(
    parts, build.SamplerOptions(**config.sample), mesh
  )
  abstract = devices.placed(build.abstract_params(config), mesh)
  results = {name: {} for name in sources}
  kinds = [checkpoint.KINDS[kind] for kind in config.eval.weights]
  step, *read = checkpoint.read_params(workdir, abstract, *kinds)
  params = dict(zip(config.eval.weights, read, strict=True))
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
    if several:
      by_num = [image.pop('by_num_samples', None) for image in scores.images]
      found['by_num_samples'] = ensembles.summarize([*filter(None, by_num)])
    nothing = [math.isnan(image['ari'][0]) for image in scores.images]
    found['num_images'] = len(nothing) - sum(nothing)
    found['per_image'] = {
      image['name']: {name: image[name] for name in metrics.names('table')}
      for image in scores.images
    }
    if jax.process_index() == 0:
      suffix = f'_{name}' if len(sources) > 1 else ''
      draw_gallery(source, scores, parts, output / f'gallery{suffix}.png')
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


def format_results(results: dict[str, Any]) -> str:
  """A few lines for people, of what `evaluate` returns."""
  lines = []
  for dataset, found in results.get('datasets', {'': results}).items():
    lines.append(
      f'{dataset + ", " if dataset else ""}step {results["step"]}, '
      f'{found["num_images"]} images, '
      f'{results["num_samples"]} samples per image'
    )
    for name in filter(found.get, ('ema', 'raw')):
      numbers = ', '.join(
        f'{key} {v:.4f}' for key, v in found[name].items() if v is not None
      )
      lines.append(f'  {name}: {numbers}')
    if 'by_num_samples' in found:
      lines += ['', ensembles.format_table(found['by_num_samples']), '']
  return '\n'.join(lines)
