"""Scores predictions of any method, by means over images and pooled counts."""

import itertools
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bitseg_jax import IGNORE_ID, metrics
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import reading
from bitseg_jax.metrics import boundary, panoptic, uncertainty
from bitseg_jax.runs.log import without_nan

# Columns of the tables: names in metrics.SCORES and some other results.
_COLUMNS = 'missing', *metrics.names('table'), *metrics.names('panoptic')
_COLUMNS += 'boundary_f', 'unclaimed'
_OF_SETS = *metrics.names('ensemble'), 'ari_oracle', 'iou_oracle'
_SET_COLUMNS = 'num_samples', *_OF_SETS, *metrics.names('reliability')
_TITLES = {name: score.title for name, score in metrics.SCORES.items()} | {
  'num_samples': 'samples',
  'ari_oracle': 'oracle ARI',
  'iou_oracle': 'oracle IoU',
}


class ImageScore(NamedTuple):
  """Scores of one image, and what is pooled over images: arrays by name.

  'covered' are the covered and the annotated pixels over all annotators,
  'panoptic' and 'boundary' means over samples of the fields of their Matches;
  'reliability' see uncertainty.count_reliability.
  """

  values: dict[str, float]  # by name; nan where there is nothing to score
  counts: dict[str, np.ndarray]
  num_samples: int  # 0 where there is no prediction


def score_image(
  samples: Sequence[np.ndarray],
  annotations: Sequence[np.ndarray],
  unclaimed: str = 'segment',
  sets: bool = False,
) -> ImageScore:
  """Evaluates a method's samples of one image against all its annotators.

  Scores are means over samples and over annotators who labelled anything that
  every sample claims.

  Args:
    samples: integers [H, W] each; -1 = in no segment.
    annotations: integers [H, W] each; -1 is unlabelled and left out.
    unclaimed: 'segment' makes pixels in no segment one more segment, connected
      or not; 'ignore' leaves them out of the scores of their sample.
    sets: whether to score the set of samples against the set of annotators.
  """
  count, names = len(samples), metrics.names('table')
  values = dict.fromkeys(names, math.nan)
  values['unclaimed'] = float(np.mean([np.mean(s < 0) for s in samples]))
  if unclaimed == 'segment':
    samples = [np.where(s < 0, s.max() + 1, s) for s in samples]
  # What each sample is compared with: where it claims anything.
  claimed = [
    [np.where(s < 0, IGNORE_ID, a) for s in samples] for a in annotations
  ]
  # Who labelled no pixel of some sample is in none of the scores.
  kept = [all((a >= 0).any() for a in row) for row in claimed]
  annotations = list(itertools.compress(annotations, kept))
  claimed = list(itertools.compress(claimed, kept))
  if not annotations:
    return ImageScore(values, {}, count)
  pairs = [zip(row, samples, strict=True) for row in claimed]
  tables = [panoptic.overlaps(*pair) for pair in itertools.chain(*pairs)]
  regions = [[*metrics.compute('table', table).values()] for table, _ in tables]
  regions = np.transpose(regions).reshape(len(names), -1, count)
  by_name = dict(zip(names, regions, strict=True))
  pixels = np.array([table.sum() for table, _ in tables])
  lines = map(boundary.match, samples, zip(*claimed, strict=True))
  covered = by_name['covering'].ravel() @ pixels
  counts = {
    'covered': np.array([covered, pixels.sum()]),
    'panoptic': np.mean([panoptic.match(*table) for table in tables], axis=0),
    'boundary': np.mean([*lines], axis=0),
    'reliability': np.zeros((uncertainty.BINS, 4)),
  }
  values |= {name: float(each.mean()) for name, each in by_name.items()}
  values['covering'] = float(covered / pixels.sum())
  for kind in 'panoptic', 'boundary':
    values |= metrics.compute(kind, counts[kind])
  if sets:
    ari, iou = by_name['ari'], by_name['iou']
    ensemble = metrics.Ensemble.of(samples, annotations, ari, iou)
    values |= metrics.compute('ensemble', ensemble)
    values['ari_oracle'] = float(ari.mean(axis=0).max())
    values['iou_oracle'] = float(iou.mean(axis=0).max())
    # Pixels that all annotators label and all samples claim.
    valid = np.all([m != IGNORE_ID for m in (*samples, *annotations)], axis=0)
    drawn = uncertainty.draw_pairs(valid)
    both = samples, annotations
    shares = (uncertainty.share_together(maps, drawn) for maps in both)
    counts['reliability'] = uncertainty.count_reliability(*shares)
  return ImageScore(values, counts, count)


def score_methods(
  source: Sequence[dict[str, Any]],
  places: Iterable[str],
  form: str = 'any',
  allow_missing: bool = False,
  image_size: int = 0,
  unclaimed: str = 'segment',
  order: str = 'score',
  ignore: Sequence[int] = (),
) -> dict[str, dict[str, ImageScore]]:
  """Scores what several methods predicted for the images of a dataset.

  Args:
    source: records of the dataset, see data/pipeline.py.
    places, form: of each method, see reading.find.
    allow_missing: whether an image without prediction counts as one region.
    image_size: longest side in pixels to compare at; 0: the annotation's.
    unclaimed, order, ignore: see score_image and reading.load.

  Returns:
    The scores by place and name of the image.

  Raises:
    ValueError, OSError: if predictions are missing, damaged, of other sizes or
      numbers of samples, or it is unclear whose a file is.
  """
  names = [source[i]['name'] for i in range(len(source))]
  found = {}
  for place in places:
    found[place] = reading.find(place, names, form)
    missing = [name for name in names if name not in found[place]]
    if missing and not (allow_missing and found[place]):
      raise FileNotFoundError(
        f'{place}: no prediction for {len(missing)} of {len(names)} images, '
        f'such as {missing[0]}; names must be those of the images'
        + ', or --allow_missing counts them as one region'
        * bool(found[place])
      )
  said = {}  # once what is so of many files
  note = lambda line: said.setdefault(line.partition(': ')[2], line)
  scores, counts = {place: {} for place in found}, {}
  for i, name in enumerate(tqdm(names, unit=' images', mininterval=1)):
    annotations = list(source[i]['id_maps'])
    shape = annotations[0].shape
    if image_size:
      shape = transforms.fit_longest_side(*shape, image_size)
      annotations = [transforms.resize_ids(a, shape) for a in annotations]
    for place, parts in found.items():
      if name not in parts:
        one = score_image([np.zeros(shape, int)], annotations, sets=True)
        scores[place][name] = one._replace(num_samples=0)
        continue
      samples = reading.load(parts[name], shape, order, ignore, note)
      count = len(samples)
      if count != counts.setdefault(place, count):
        raise ValueError(
          f'{count} samples of {name}, but {counts[place]} of images before '
          'it; give all the same number'
        )
      one = score_image(samples, annotations, unclaimed, count > 1)
      scores[place][name] = one
  for line in said.values():
    logging.warning('%s', line)
  return scores


def summarize(scores: dict[str, ImageScore]) -> dict[str, Any]:
  """Summarizes the scores of one method over all images, given by name.

  Returns:
    num_images (those with anything to score), left_out, missing, num_samples;
    means over images of the region scores, unclaimed and, with several samples,
    those of sets and their oracles; from pooled counts: covering_pooled,
    panoptic and boundary scores, ece, brier, bins; and per_image. None where
    there is nothing to score.
  """
  num_samples = max(score.num_samples for score in scores.values())
  good = [s for s in scores.values() if s.counts]
  summary: dict[str, Any] = {
    'num_images': len(good),
    'left_out': len(scores) - len(good),
    'missing': sum(not s.num_samples for s in scores.values()),
    'num_samples': num_samples,
  }
  means = 'unclaimed', *metrics.names('table')
  for name in means + _OF_SETS * (num_samples > 1) if good else ():
    values = np.array([score.values[name] for score in good])
    finite = values[~np.isnan(values)]
    summary[name] = float(finite.mean()) if len(finite) else None
  if good:
    pooled = {
      kind: np.sum([score.counts[kind] for score in good], axis=0)
      for kind in good[0].counts
    }
    summary['covering_pooled'] = float(np.divide(*pooled['covered']))
    for kind in 'panoptic', 'boundary':
      summary |= metrics.compute(kind, pooled[kind])
    if num_samples > 1:
      summary |= uncertainty.calibration(pooled['reliability'])
  per_image = {name: s.values for name, s in scores.items()}
  return without_nan({**summary, 'per_image': per_image})


def format_table(results: dict[str, dict[str, Any]]) -> str:
  """Formats the summaries of methods as text, one line per method.

  If any method has several samples, their scores follow in a second table.
  """
  several = {p: r for p, r in results.items() if r['num_samples'] > 1}
  lines = []
  for methods, columns in (results, _COLUMNS), (several, _SET_COLUMNS):
    titles = [_TITLES.get(name, name) for name in columns]
    rows = [['method', 'images', *titles]]
    for place, result in methods.items():
      rows.append([place, result['num_images'], *map(result.get, columns)])
    if methods:
      lines += [align(rows), '']
  if several:
    lines[-1] = 'oracle: the best sample, chosen by looking at the truth'
  return '\n'.join(lines).rstrip()


def align(rows: Sequence[Sequence[Any]]) -> str:
  """Aligns cells as text, the first of each row to the left; None is a dash."""
  lines, cell = [], lambda v: f'{v:.3f}' if isinstance(v, float) else str(v)
  rows = [['-' if v is None else cell(v) for v in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for first, *cells in rows:
    padded = map(str.rjust, cells, widths[1:])
    lines.append('  '.join([first.ljust(widths[0]), *padded]))
  return '\n'.join(lines)
