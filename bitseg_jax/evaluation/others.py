"""Scores predictions of any method, by means over images and pooled counts."""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bitseg_jax import IGNORE_ID, metrics
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import reading
from bitseg_jax.runs.log import without_nan


class ImageScore(NamedTuple):
  """Scores of one image, and the counts to pool over images.

  Attributes:
    values: scores by name; nan where there is nothing to score.
    counts: arrays by name: 'covered', covered and annotated pixels over all
      annotators; 'panoptic' and 'boundary', means over samples of the fields of
      their Matches; 'reliability', see metrics.uncertainty.count_reliability.
    num_samples: samples of the image; 0 where there is no prediction.
  """

  values: dict[str, float]
  counts: dict[str, np.ndarray]
  num_samples: int


# Columns of the tables: names in metrics.SCORES and some other results.
_COLUMNS = (
  *('missing', *metrics.names('table'), *metrics.names('panoptic')),
  *('boundary_f', 'unclaimed'),
)
_SET_COLUMNS = (
  *('num_samples', *metrics.names('ensemble'), 'ari_oracle', 'iou_oracle'),
  *metrics.names('reliability'),
)
_TITLES = {name: score.title for name, score in metrics.SCORES.items()} | {
  'num_samples': 'samples',
  'ari_oracle': 'oracle ARI',
  'iou_oracle': 'oracle IoU',
}


def score_image(
  samples: Sequence[np.ndarray],
  annotations: Sequence[np.ndarray],
  unclaimed: str = 'segment',
  sets: bool = False,
) -> ImageScore:
  """Evaluates a method's samples of one image against all its annotators.

  Args:
    samples: integers [H, W] each; -1 = in no segment.
    annotations: integers [H, W] each; -1 is unlabelled and left out.
    unclaimed: 'segment' makes pixels in no segment one more segment, connected
      or not; 'ignore' leaves them out of the scores of their sample.
    sets: whether to score the set of samples against the set of annotators.

  Returns:
    The scores: means over samples and over annotators who labelled anything
    that every sample claims.
  """
  share = np.mean([np.mean(sample == IGNORE_ID) for sample in samples])
  if unclaimed == 'segment':
    samples = [np.where(s == IGNORE_ID, s.max() + 1, s) for s in samples]
  claimed = [sample != IGNORE_ID for sample in samples]
  # Who labelled no pixel of some sample is in none of the scores.
  annotations = [
    a for a in annotations if all((c & (a != IGNORE_ID)).any() for c in claimed)
  ]
  names, panoptic, boundary = metrics.names('table'), [], []
  regions = np.full((len(names), len(annotations), len(samples)), np.nan)
  pixels = np.zeros(regions.shape[1:])
  for j, (sample, seen) in enumerate(zip(samples, claimed, strict=True)):
    for i, annotation in enumerate(annotations):
      table, outside = metrics.panoptic.contingency(annotation, sample, seen)
      regions[:, i, j] = list(metrics.compute('table', table).values())
      pixels[i, j] = table.sum()
      panoptic.append(metrics.panoptic.match(table, outside))
    compared = [np.where(seen, a, IGNORE_ID) for a in annotations]
    boundary.append(metrics.boundary.match(sample, compared))
  by_name = dict(zip(names, regions, strict=True))
  mean = lambda rows: np.mean(rows, axis=0) if rows else np.full(4, np.nan)
  counts = {
    'covered': np.array(
      [np.nansum(by_name['covering'] * pixels), pixels.sum()]
    ),
    'panoptic': mean(panoptic),
    'boundary': mean(boundary),
    'reliability': np.zeros((metrics.uncertainty.BINS, 4)),
  }
  values = dict.fromkeys(names, math.nan)
  if annotations:
    values = {name: float(np.mean(each)) for name, each in by_name.items()}
    values['covering'] = float(np.divide(*counts['covered']))
  for kind in 'panoptic', 'boundary':
    values |= metrics.compute(kind, counts[kind])
  values['unclaimed'] = float(share)
  if sets and annotations:
    ari, iou = by_name['ari'], by_name['iou']
    ensemble = metrics.Ensemble.of(samples, annotations, ari, iou)
    values |= metrics.compute('ensemble', ensemble)
    values['ari_oracle'] = metrics.sets.oracle_best(ari)
    values['iou_oracle'] = metrics.sets.oracle_best(iou)
    # Pixels that all annotators label and all samples claim.
    valid = np.all([m != IGNORE_ID for m in (*samples, *annotations)], axis=0)
    pairs = metrics.uncertainty.draw_pairs(valid)
    together = metrics.uncertainty.share_together
    counts['reliability'] = metrics.uncertainty.count_reliability(
      together(samples, pairs), together(annotations, pairs)
    )
  return ImageScore(values, counts, len(samples))


def score_methods(
  source: Sequence[dict[str, Any]],
  places: Iterable[str],
  form: str = 'any',
  allow_missing: bool = False,
  image_size: int = 0,
  **how: Any,
) -> dict[str, dict[str, ImageScore]]:
  """Scores what several methods predicted for the images of a dataset.

  Args:
    source: records of the dataset, see data/pipeline.py.
    places: directory or file of each method.
    form: see reading.find, as `places`.
    allow_missing: whether an image without prediction counts as one region.
    image_size: longest side in pixels to compare at, with ids resized by
      nearest neighbour; 0 = size of the annotation.
    **how: `unclaimed` of score_image, `order` and `ignore` of reading.load.

  Returns:
    The scores by place and name of the image.

  Raises:
    ValueError, OSError: if predictions are missing, damaged, of other sizes or
      numbers of samples, or it is unclear whose a file is.
  """
  unclaimed = how.pop('unclaimed', 'segment')
  names = [source[i]['name'] for i in range(len(source))]
  said, found = set(), {}

  def note(line):
    """Says once what is so of many files."""
    what = line.partition(': ')[2]
    if not what or what not in said:
      logging.warning('%s', line)
    said.add(what)

  for place in places:
    found[place] = reading.find(place, names, form, note)
    missing = [name for name in names if name not in found[place]]
    if missing and not (allow_missing and found[place]):
      raise FileNotFoundError(
        f'{place}: no prediction for {len(missing)} of {len(names)} images, '
        f'such as {missing[0]}; names must be those of the images'
        + ' (or --allow_missing counts them as one region)'
        * bool(found[place])
      )
  scores, counts = {place: {} for place in found}, {}
  for i, name in enumerate(tqdm(names, unit=' images', mininterval=1)):
    annotations = list(source[i]['id_maps'])
    shape = annotations[0].shape
    if image_size:
      shape = transforms.fit_longest_side(*shape, image_size)
      annotations = [transforms.resize_ids(a, shape) for a in annotations]
    for place, parts in found.items():
      samples = [np.zeros(shape, np.int32)]  # an image without prediction
      count, sets = 0, True
      if name in parts:
        samples = reading.load(parts[name], shape, note=note, **how)
        count, sets = len(samples), len(samples) > 1
        if count != counts.setdefault(place, count):
          raise ValueError(
            f'{count} samples of {name}, but {counts[place]} of images before '
            'it; give all the same number'
          )
      score = score_image(samples, annotations, unclaimed, sets)
      scores[place][name] = score._replace(num_samples=count)
  return scores


def summarize(scores: dict[str, ImageScore]) -> dict[str, Any]:
  """Summarizes the scores of one method over all images.

  Args:
    scores: scores of each image by name. Where images have one sample, scores
      of sets are left out.

  Returns:
    num_images (those with anything to score), left_out, missing, num_samples;
    means over images of the region scores, unclaimed and, with several samples,
    those of sets and their oracles; from pooled counts: covering_pooled,
    panoptic and boundary scores, ece, brier, bins; and per_image. None where
    there is nothing to score.
  """
  num_samples = max(score.num_samples for score in scores.values())
  good = [s for s in scores.values() if not math.isnan(s.values['ari'])]
  summary: dict[str, Any] = {
    'num_images': len(good),
    'left_out': len(scores) - len(good),
    'missing': sum(not s.num_samples for s in scores.values()),
    'num_samples': num_samples,
  }
  means = ['unclaimed', *metrics.names('table')]
  if num_samples > 1:
    means += [*metrics.names('ensemble'), 'ari_oracle', 'iou_oracle']
  for name in means:
    values = [s.values[name] for s in good if name in s.values]
    finite = [value for value in values if not math.isnan(value)]
    if values:
      summary[name] = float(np.mean(finite)) if finite else None
  if good:
    pooled = {
      kind: np.sum([score.counts[kind] for score in good], axis=0)
      for kind in good[0].counts
    }
    summary['covering_pooled'] = float(np.divide(*pooled['covered']))
    for kind in 'panoptic', 'boundary':
      summary |= metrics.compute(kind, pooled[kind])
    if num_samples > 1:
      summary |= metrics.uncertainty.calibration(pooled['reliability'])
  per_image = {name: s.values for name, s in scores.items()}
  return without_nan({**summary, 'per_image': per_image})


def format_table(results: dict[str, dict[str, Any]]) -> str:
  """Formats the summaries of methods as text, one line per method.

  If any method has several samples, their scores follow in a second table.
  """
  several = {p: r for p, r in results.items() if r['num_samples'] > 1}
  width, lines = max(len('method'), *map(len, results)), []
  row = lambda place, images, cells: (
    f'{place:<{width}}{images:>8}' + ''.join(f'{c:>11}' for c in cells)
  )
  for methods, columns in (results, _COLUMNS), (several, _SET_COLUMNS):
    if methods:
      titles = [_TITLES.get(name, name) for name in columns]
      lines += [''] * bool(lines) + [row('method', 'images', titles)]
    for place, result in methods.items():
      values = [result.get(name) for name in columns]
      cells = [f'{v:.3f}' if isinstance(v, float) else v for v in values]
      cells = ['-' if c is None else c for c in cells]
      lines.append(row(place, result['num_images'], cells))
  if several:
    lines.append('oracle: the best sample, chosen by looking at the truth')
  return '\n'.join(lines)
