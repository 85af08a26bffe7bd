"""Scores the single answers that N samples of an image give, for several N.

The answers are `one` sample, the `medoid`, the `consensus` (see
evaluation/consensus.py) and the `oracle`, which is the best of the N samples by
each score and looks at the annotations. All run in numpy, on the host.
"""

import copy
from collections.abc import Sequence

import numpy as np

from bitseg_jax import metrics
from bitseg_jax.evaluation import consensus

ANSWERS = 'one', 'medoid', 'consensus', 'oracle'


def score_pairs(
  samples: Sequence[np.ndarray], annotations: Sequence[np.ndarray]
) -> np.ndarray:
  """Scores N samples by A annotations each: [A, N, K], see region_scores."""
  pairs = [[metrics.region_scores(a, s) for s in samples] for a in annotations]
  return np.reshape(pairs, (len(pairs), len(samples), -1))


def score(
  samples: np.ndarray, annotations: Sequence[np.ndarray], pairs: np.ndarray
) -> dict[str, dict]:
  """Evaluates the single answers that the samples of one image give.

  Args:
    samples: integers [N, H, W], without IGNORE_ID. Smaller N use the first
      samples, but `one` is the mean over all of them.
    annotations: integers [H, W] each, of one annotator at least; -1 is
      unlabelled and left out.
    pairs: what score_pairs gives for them.

  Returns:
    {N': {answer: {name in metrics.SCORES: value}}} for N' = 1, 2, 4, ... up to
    N: means over annotators. The answer 'set' has the scores of all N' samples
    as a set.
  """
  of_samples, names = pairs.mean(axis=0), metrics.names('table')  # [N, K]
  ari, iou = (pairs[..., names.index(name)] for name in ('ari', 'iou'))
  ensemble = metrics.Ensemble.of(samples, annotations, ari, iou)
  higher = [metrics.SCORES[name].higher_is_better for name in names]
  found = {}
  for count in (2**i for i in range(len(samples).bit_length())):
    first, scores = samples[:count], of_samples[:count]
    if count == 1:
      answers = {'one': of_samples.mean(axis=0)}
    else:
      joint = consensus.consensus(first)
      of_joint = [metrics.region_scores(a, joint) for a in annotations]
      answers = {
        'medoid': of_samples[consensus.medoid(first)],
        'consensus': np.mean(of_joint, axis=0),
        'oracle': np.where(higher, scores.max(axis=0), scores.min(axis=0)),
      }
    found[str(count)] = {
      answer: dict(zip(names, values.tolist(), strict=True))
      for answer, values in answers.items()
    } | {'set': metrics.compute('ensemble', ensemble.first(count))}
  return found


def summarize(found: Sequence[dict[str, dict]]) -> dict[str, dict]:
  """Averages what `score` returned for each image.

  nan is left out; the mean is None if no image had anything to score.
  """
  summary = copy.deepcopy(found[0]) if found else {}
  for count, answers in summary.items():
    for answer, scores in answers.items():
      for name in scores:
        values = np.array([of_image[count][answer][name] for of_image in found])
        values = values[~np.isnan(values)]
        scores[name] = float(values.mean()) if len(values) else None
  return summary


def format_table(summary: dict[str, dict]) -> str:
  """Formats what `summarize` returns as Markdown: one line per N and answer."""
  names = [*metrics.names('table'), *metrics.names('ensemble')]
  titles = ['N', 'answer', *(metrics.SCORES[name].title for name in names)]
  lines = [titles, ['---'] * len(titles)]
  for count, answers in summary.items():
    for answer in filter(answers.get, ANSWERS):
      # Scores of the whole set are shown once, beside its first answer.
      of_set = answers['set'] if answer in ANSWERS[:2] else {}
      found = [(answers[answer] | of_set).get(name) for name in names]
      cells = ['' if v is None else f'{v:.3f}' for v in found]
      note = ' (looks at the truth)' * (answer == 'oracle')
      lines.append([count, answer + note, *cells])
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
