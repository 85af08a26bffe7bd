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
    covered: float [2], covered and annotated pixels, over all annotators.
    panoptic: segment matches, mean over annotators and samples.
    boundary: boundary matches, mean over samples.
    reliability: see metrics.uncertainty.count_reliability; 0 without sets.
    num_samples: samples of the image; 0 where there is no prediction.
  """

  values: dict[str, float]
  covered: np.ndarray
  panoptic: metrics.panoptic.Matches
  boundary: metrics.boundary.Matches
  reliability: np.ndarray
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
_TITLES = {
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
    samples = [_claim(sample) for sample in samples]
  annotations = _comparable(annotations, samples)
  shape = len(annotations), len(samples)
  names = metrics.names('table')
  regions = np.full((*shape, len(names)), np.nan)
  pixels, matches = np.zeros(shape), []
  for (i, j), _ in np.ndenumerate(pixels):
    table, outside = metrics.panoptic.contingency(
      annotations[i], samples[j], samples[j] != IGNORE_ID
    )
    regions[i, j] = list(metrics.compute('table', table).values())
    pixels[i, j] = table.sum()
    matches.append(metrics.panoptic.match(table, outside))
  panoptic = metrics.panoptic.Matches(*_mean(matches, 4))
  boundary = metrics.boundary.Matches(
    *_mean([_match_boundaries(s, annotations) for s in samples], 4)
  )
  means = _mean(regions.reshape(-1, regions.shape[-1]), regions.shape[-1])
  values = dict(zip(names, means.tolist(), strict=True))
  covering = regions[..., names.index('covering')]
  covered = np.nansum(covering * pixels), pixels.sum()
  if not math.isnan(values['covering']):
    values['covering'] = float(covered[0] / covered[1])
  values |= metrics.compute('panoptic', panoptic)
  values |= metrics.compute('boundary', boundary)
  values['unclaimed'] = float(share)
  reliability = np.zeros((metrics.uncertainty.BINS, 4))
  if sets and annotations:
    ari, iou = (regions[..., names.index(name)] for name in ('ari', 'iou'))
    values |= _score_sets(samples, annotations, ari, iou)
    reliability = _count_reliability(samples, annotations)
  return ImageScore(
    values,
    np.array(covered),
    panoptic,
    boundary,
    reliability,
    len(samples),
  )


def _comparable(annotations, samples):
  """Annotations that label a pixel of every sample: others have no score."""
  return [
    a
    for a in annotations
    if all(((a != IGNORE_ID) & (s != IGNORE_ID)).any() for s in samples)
  ]


def _claim(id_map):
  left = id_map == IGNORE_ID
  return np.where(left, id_map.max() + 1, id_map) if left.any() else id_map


def _mean(rows, width):
  return np.mean(rows, axis=0) if len(rows) else np.full(width, np.nan)


def _match_boundaries(sample, annotations):
  if (sample == IGNORE_ID).any():
    left = sample == IGNORE_ID
    annotations = [np.where(left, IGNORE_ID, a) for a in annotations]
  return metrics.boundary.match(sample, annotations)


def _score_sets(samples, annotations, ari, iou):
  ensemble = metrics.Ensemble(
    samples,
    annotations,
    ari,
    iou,
    metrics.pairwise_distances(samples),
    metrics.pairwise_distances(annotations),
  )
  return {
    **metrics.compute('ensemble', ensemble),
    'ari_oracle': metrics.sets.oracle_best(ari),
    'iou_oracle': metrics.sets.oracle_best(iou),
  }


def _count_reliability(samples, annotations):
  """Counts over pixels that all annotators label and all samples claim."""
  valid = np.all([m != IGNORE_ID for m in (*samples, *annotations)], axis=0)
  pairs = metrics.uncertainty.draw_pairs(valid)
  share = metrics.uncertainty.share_together
  return metrics.uncertainty.count_reliability(
    share(samples, pairs), share(annotations, pairs)
  )


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
    places: directory or file of each method, see reading.find.
    form: see reading.find.
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
  said: set[str] = set()

  def note(line):
    """Says once what is so of many files."""
    what = line.partition(': ')[2]
    if not what or what not in said:
      logging.warning('%s', line)
    said.add(what)

  found = {}
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
  scores: dict[str, dict[str, ImageScore]] = {place: {} for place in found}
  counts: dict[str, int] = {}
  total = len(source) * len(found)
  with tqdm(total=total, unit=' images', mininterval=1) as progress:
    for i, name in enumerate(names):
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
              f'{count} samples of {name}, but {counts[place]} of images '
              'before it; give all the same number'
            )
        score = score_image(samples, annotations, unclaimed, sets)
        scores[place][name] = score._replace(num_samples=count)
        progress.update()
  return scores


def summarize(scores: dict[str, ImageScore]) -> dict[str, Any]:
  """Summarizes the scores of one method over all images.

  Args:
    scores: scores of each image by name. Where images have one sample, scores
      of sets are left out.

  Returns:
    num_images (those with anything to score), left_out, missing, num_samples;
    means over images: the region scores, unclaimed and, with several samples,
    ged, matched_set_iou, ari_oracle and iou_oracle (best of num_samples, an
    oracle) and contested_auroc; from pooled counts: pq, sq, rq, boundary_f,
    boundary_precision, boundary_recall, covering_pooled, ece, brier, bins; and
    per_image. None where there is nothing to score.
  """
  num_samples = max(score.num_samples for score in scores.values())
  good = [s for s in scores.values() if not math.isnan(s.values['ari'])]
  means = ['unclaimed', *metrics.names('table')]
  if num_samples > 1:
    means += [*metrics.names('ensemble'), 'ari_oracle', 'iou_oracle']
  summary: dict[str, Any] = {
    'num_images': len(good),
    'left_out': len(scores) - len(good),
    'missing': sum(not s.num_samples for s in scores.values()),
    'num_samples': num_samples,
  }
  for name in means:
    values = [s.values[name] for s in good if name in s.values]
    finite = [value for value in values if not math.isnan(value)]
    if values:
      summary[name] = float(np.mean(finite)) if finite else None
  if good:
    pooled = lambda field: np.sum([getattr(s, field) for s in good], axis=0)
    covered, pixels = pooled('covered')
    summary['covering_pooled'] = float(covered / pixels)
    panoptic = metrics.panoptic.Matches(*pooled('panoptic').tolist())
    summary |= metrics.compute('panoptic', panoptic)
    boundary = metrics.boundary.Matches(*pooled('boundary').tolist())
    summary |= metrics.compute('boundary', boundary)
    if num_samples > 1:
      summary |= metrics.uncertainty.calibration(pooled('reliability'))
  per_image = {name: s.values for name, s in scores.items()}
  return without_nan({**summary, 'per_image': per_image})


def format_table(results: dict[str, dict[str, Any]]) -> str:
  """Formats the summaries of methods as text, one line per method.

  If any method has several samples, their scores follow in a second table.
  """
  several = {p: r for p, r in results.items() if r['num_samples'] > 1}
  blocks = [(results, _COLUMNS), (several, _SET_COLUMNS)]
  width, lines = max(len('method'), *map(len, results)), []
  row = lambda place, images, cells: (
    f'{place:<{width}}{images:>8}' + ''.join(f'{c:>11}' for c in cells)
  )
  for methods, columns in blocks if several else blocks[:1]:
    titles = [
      metrics.SCORES[name].title
      if name in metrics.SCORES
      else _TITLES.get(name, name)
      for name in columns
    ]
    lines += [''] * bool(lines) + [row('method', 'images', titles)]
    for place, result in methods.items():
      cells = [_format_cell(result.get(name)) for name in columns]
      lines.append(row(place, result['num_images'], cells))
  if several:
    lines.append('oracle: the best sample, chosen by looking at the truth')
  return '\n'.join(lines)


def _format_cell(value):
  if value is None:
    return '-'
  return f'{value:.3f}' if isinstance(value, float) else str(value)
