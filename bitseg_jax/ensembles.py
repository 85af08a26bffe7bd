"""How good one answer from N samples is, by N: numpy, host.

The answers: `one` sample, the `medoid`, the `consensus` (see consensus.py), and
the `oracle`, the best of N by each score, which looks at the annotations.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bitseg_jax import (
  IGNORE_ID,
  consensus,
  metrics,
  metrics_sets,
  metrics_uncertainty,
)

ANSWERS = 'one', 'medoid', 'consensus', 'oracle'
# Of all N samples against all annotators; the last is of their disagreement.
SET_SCORES = 'ged', 'matched_set_iou', 'contested_auroc'
_LOWER_IS_BETTER = np.array([s == 'voi_bits' for s in metrics.REGION_SCORES])


class Column(NamedTuple):
  """What a number of `score` is.

  Attributes:
    count: N, samples used.
    answer: one of ANSWERS, or 'set'.
    score: one of metrics.REGION_SCORES, or of SET_SCORES.
  """

  count: int
  answer: str
  score: str


def columns(num_samples: int) -> list[Column]:
  """What `score` returns for so many samples: N = 1, 2, 4, ... of them."""
  found = []
  for count in _counts(num_samples):
    answers = ANSWERS[:1] if count == 1 else ANSWERS[1:]
    found += [
      Column(count, a, s) for a in answers for s in metrics.REGION_SCORES
    ]
    sets = SET_SCORES if count > 1 else SET_SCORES[:2]
    found += [Column(count, 'set', s) for s in sets]
  return found


def score(samples: np.ndarray, annotations: Sequence[np.ndarray]) -> np.ndarray:
  """Scores the answers that the samples of one image give.

  Args:
    samples: integers [N, H, W], without IGNORE_ID. N' samples are the first N';
      `one` is the mean over all of them.
    annotations: integers [H, W] each; -1 is unlabelled, and left out.

  Returns:
    float [K], one for each of `columns`: means over the annotators who labelled
    anything, nan where there is nothing to score. ged: generalized energy
    distance with 1 - ARI; matched_set_iou, contested_auroc: see metrics_sets
    and metrics_uncertainty.
  """
  annotations = [a for a in annotations if (a != IGNORE_ID).any()]
  wanted = columns(len(samples))
  if not annotations:
    return np.full(len(wanted), np.nan)
  regions = np.stack([_regions(s, annotations) for s in samples], axis=1)
  ari, iou = regions[..., 0], regions[..., 1]  # [A, N]
  among_samples = _distances(samples)
  among_annotations = _distances(annotations)
  values = {}
  for count in _counts(len(samples)):
    first = slice(0, count)
    if count == 1:
      found = {'one': regions.mean(axis=(0, 1))}
    else:
      found = _answers(samples[first], annotations, regions[:, first])
    for answer, numbers in found.items():
      for name, value in zip(metrics.REGION_SCORES, numbers, strict=True):
        values[Column(count, answer, name)] = value
    sets = (
      metrics_sets.energy_distance(
        1 - ari[:, first], among_annotations, among_samples[first, first]
      ),
      metrics_sets.matched_score(iou[:, first]),
    )
    if count > 1:
      uncertainty = metrics_uncertainty.disagreement(samples[first])
      sets += (metrics_uncertainty.contested_area(uncertainty, annotations),)
    for name, value in zip(SET_SCORES, sets, strict=False):
      values[Column(count, 'set', name)] = value
  return np.array([values[column] for column in wanted])


def summarize(scores: np.ndarray, num_samples: int) -> dict[str, dict]:
  """Means over images.

  Args:
    scores: float [M, K], rows as from `score`; nan is left out.
    num_samples: N.

  Returns:
    {N': {answer: {score: mean}}}, None where no image had anything to score.
  """
  summary: dict[str, dict] = {}
  for column, values in zip(columns(num_samples), scores.T, strict=True):
    values = values[~np.isnan(values)]
    of_count = summary.setdefault(str(column.count), {})
    of_count.setdefault(column.answer, {})[column.score] = (
      float(values.mean()) if len(values) else None
    )
  return summary


def format_table(summary: dict[str, dict]) -> str:
  """Markdown of what `summarize` returns: a line for each N and answer."""
  names = [*metrics.REGION_SCORES, *SET_SCORES]
  titles = ['ARI', 'IoU', 'covering', 'PRI', 'VoI', 'GED', 'set IoU', 'AUROC']
  lines = [
    f'| N | answer | {" | ".join(titles)} |',
    '|---' * (2 + len(titles)) + '|',
  ]
  for count, answers in summary.items():
    for answer in filter(answers.get, ANSWERS):
      # Scores of the whole set stand once, beside its first answer.
      of_set = {} if answer in ANSWERS[2:] else answers['set']
      found = {**answers[answer], **of_set}
      cells = [_cell(found.get(name)) for name in names]
      shown = f'{answer} (looks at the truth)' * (answer == ANSWERS[-1])
      lines.append(f'| {count} | {shown or answer} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def _cell(value):
  return '' if value is None else f'{value:.3f}'


def _counts(num_samples):
  return [2**i for i in range(num_samples.bit_length())]


def _regions(pred, annotations):
  """Region scores of one map with each annotator: float [A, 5]."""
  return np.array(
    [
      list(metrics.region_scores(metrics.contingency(a, pred)[0]).values())
      for a in annotations
    ]
  )


def _answers(samples, annotations, regions):
  """Region scores [5] of each answer but `one`, means over annotators."""
  of_samples = regions.mean(axis=0)  # [N, 5]
  answer = consensus.consensus(samples)
  return {
    'medoid': of_samples[consensus.medoid(samples)],
    'consensus': _regions(answer, annotations).mean(axis=0),
    'oracle': np.where(
      _LOWER_IS_BETTER, of_samples.min(axis=0), of_samples.max(axis=0)
    ),
  }


def _distances(maps):
  """1 - ARI of all pairs, float [N, N], over what the second labelled."""
  return np.array(
    [
      [1 - metrics.adjusted_rand_index(b, a) if a is not b else 0 for b in maps]
      for a in maps
    ]
  )
