"""Scores predictions of any method, by means over images and pooled counts."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bitseg_jax import IGNORE_ID, metrics
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import reading

# Columns of the tables: names in metrics.SCORES and some other results.
_COLUMNS = (
  *metrics.names('table'),
  *metrics.names('panoptic'),
  'boundary_f',
  'unclaimed',
)
_SET_COLUMNS = (
  'num_samples',
  *metrics.names('ensemble'),
  'ari_oracle',
  'iou_oracle',
  *metrics.names('reliability'),
)
_TITLES = {
  'num_samples': 'samples',
  'ari_oracle': 'oracle ARI',
  'iou_oracle': 'oracle IoU',
}


class ImageScore(NamedTuple):
  """Scores of one image, and the counts to pool over images.

  Attributes:
    values: scores by name; nan where there is nothing to score.
    covered: float [2], covered and annotated pixels, over all annotators.
    panoptic: segment matches, mean over annotators and samples.
    boundary: boundary matches, mean over samples.
    reliability: see metrics.uncertainty.count_reliability; 0 without sets.
  """

  values: dict[str, float]
  covered: np.ndarray
  panoptic: metrics.panoptic.Matches
  boundary: metrics.boundary.Matches
  reliability: np.ndarray


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
  # One rule for all tables: in none would an empty annotator have a score.
  annotations = [
    a
    for a in annotations
    if all(((a != IGNORE_ID) & (s != IGNORE_ID)).any() for s in samples)
  ]
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
  return ImageScore(values, np.array(covered), panoptic, boundary, reliability)


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
  unclaimed: str = 'segment',
  order: str = 'score',
  image_size: int = 0,
  allow_missing: bool = False,
) -> dict[str, dict[str, Any]]:
  """Scores what several methods predicted for the images of a dataset.

  Args:
    source: records of the dataset, see data/pipeline.py.
    places: directory or file of each method, see reading.find.
    form, order: see reading.find and reading.load.
    unclaimed: see score_image.
    image_size: longest side in pixels to compare at, with ids resized by
      nearest neighbour; 0 = size of the annotation.
    allow_missing: whether an image without prediction counts as one region.

  Returns:
    The result of `summarize` for each place.

  Raises:
    ValueError, OSError: if predictions are missing, damaged or of other sizes.
  """
  names = [source[i]['name'] for i in range(len(source))]
  found = {place: reading.find(place, names, form) for place in places}
  for place, parts in found.items():
    _check_missing(place, names, parts, allow_missing)
  rows = {place: {} for place in found}
  counts: dict[str, int] = {}
  total = len(names) * len(found)
  with tqdm(total=total, unit=' images', mininterval=1) as progress:
    for i, name in enumerate(names):
      annotations = list(source[i]['id_maps'])
      shape = annotations[0].shape
      if image_size:
        shape = transforms.fit_longest_side(*shape, image_size)
        annotations = [transforms.resize_ids(a, shape) for a in annotations]
      for place, parts in found.items():
        samples, missing = [np.zeros(shape, np.int32)], name not in parts
        if not missing:
          samples = reading.load(parts[name], shape, order)
          _check_count(counts.setdefault(place, len(samples)), samples, name)
        sets = len(samples) > 1 or missing
        rows[place][name] = score_image(samples, annotations, unclaimed, sets)
        progress.update()
  return {
    place: summarize(scores, len(names) - len(found[place]), counts[place])
    for place, scores in rows.items()
  }


def _check_count(expected, samples, name):
  if len(samples) != expected:
    raise ValueError(
      f'{len(samples)} samples of {name}, but {expected} of images before it; '
      'give all the same number'
    )


def _check_missing(place, names, parts, allow_missing):
  missing = [name for name in names if name not in parts]
  if not missing or (allow_missing and parts):
    return
  raise FileNotFoundError(
    f'{place}: no prediction for {len(missing)} of {len(names)} images, such '
    f'as {missing[0]}; names must be those of the images'
    + ' (or --allow_missing counts them as one region)'
    * bool(parts)
  )


def summarize(
  scores: dict[str, ImageScore], missing: int = 0, num_samples: int = 1
) -> dict[str, Any]:
  """Summarizes the scores of one method over all images.

  Args:
    scores: scores of each image by name.
    missing: number of images without prediction.
    num_samples: samples per image; if it is 1, scores of sets are left out.

  Returns:
    num_images (those with anything to score), left_out, missing, num_samples;
    means over images: the region scores, unclaimed and, with several samples,
    ged, matched_set_iou, ari_oracle and iou_oracle (best of num_samples, an
    oracle) and contested_auroc; from pooled counts: pq, sq, rq, boundary_f,
    boundary_precision, boundary_recall, covering_pooled, ece, brier, bins; and
    per_image. None where there is nothing to score.
  """
  good = [s for s in scores.values() if not math.isnan(s.values['ari'])]
  means = ['unclaimed', *metrics.names('table')]
  if num_samples > 1:
    means += [*metrics.names('ensemble'), 'ari_oracle', 'iou_oracle']
  summary: dict[str, Any] = {
    'num_images': len(good),
    'left_out': len(scores) - len(good),
    'missing': missing,
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
  return _without_nan({**summary, 'per_image': per_image})


def _without_nan(values):
  """Replaces nan, which JSON lacks, by None."""
  if isinstance(values, dict):
    return {name: _without_nan(value) for name, value in values.items()}
  return None if isinstance(values, float) and math.isnan(values) else values


def format_table(results: dict[str, dict[str, Any]]) -> str:
  """Formats what score_methods returns as text, one line per method.

  If any method has several samples, their scores follow in a second table.
  """
  lines = _format_block(results, ('missing', *_COLUMNS))
  several = {p: r for p, r in results.items() if r['num_samples'] > 1}
  if several:
    lines += ['', *_format_block(several, _SET_COLUMNS)]
    lines.append('oracle: the best sample, chosen by looking at the truth')
  return '\n'.join(lines)


def _format_block(results, columns):
  width = max(len('method'), *map(len, results))
  titles = [_title(name) for name in columns]
  lines = [_format_row(width, 'method', 'images', titles)]
  for place, result in results.items():
    cells = [_format_cell(result.get(name)) for name in columns]
    lines.append(_format_row(width, place, result['num_images'], cells))
  return lines


def _title(name):
  score = metrics.SCORES.get(name)
  return score.title if score else _TITLES.get(name, name)


def _format_row(width, place, images, cells):
  return f'{place:<{width}}{images:>8}' + ''.join(f'{c:>11}' for c in cells)


def _format_cell(value):
  if value is None:
    return '-'
  return f'{value:.3f}' if isinstance(value, float) else str(value)
