"""Scores the single answers that N samples of an image give, for several N.

The answers are `one` sample, the `medoid`, the `consensus` (see
evaluation/consensus.py) and the `oracle`, which is the best of the N samples by
each score and looks at the annotations. All run in numpy, on the host.
"""

from collections.abc import Sequence

import numpy as np

from bitseg_jax import IGNORE_ID, metrics
from bitseg_jax.evaluation import consensus

ANSWERS = 'one', 'medoid', 'consensus', 'oracle'


def columns(num_samples: int) -> list[tuple[int, str, str]]:
  """Lists what `score` returns, for N = 1, 2, 4, ... up to num_samples.

  Each is (N, one of ANSWERS or 'set', name in metrics.SCORES).
  """
  found = []
  for count in _counts(num_samples):
    for answer in ANSWERS[:1] if count == 1 else ANSWERS[1:]:
      found += [(count, answer, name) for name in metrics.names('table')]
    found += [(count, 'set', name) for name in metrics.names('ensemble')]
  return found


def labelled(annotations: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Leaves out annotations, integers [H, W] each, that label no pixel."""
  return [a for a in annotations if (a != IGNORE_ID).any()]


def score(samples: np.ndarray, annotations: Sequence[np.ndarray]) -> np.ndarray:
  """Evaluates the single answers that the samples of one image give.

  Args:
    samples: integers [N, H, W], without IGNORE_ID. Smaller N use the first
      samples, but `one` is the mean over all of them.
    annotations: integers [H, W] each; -1 is unlabelled and left out.

  Returns:
    float [K], one number for each of `columns`: the mean over annotators who
    labelled anything; nan if there is nothing to score.
  """
  annotations = labelled(annotations)
  if not annotations:
    return np.full(len(columns(len(samples))), np.nan)
  regions = np.array(
    [[metrics.of_regions(a, s) for s in samples] for a in annotations]
  )
  of_samples, names = regions.mean(axis=0), metrics.names('table')  # [N, K]
  ari, iou = (regions[..., names.index(name)] for name in ('ari', 'iou'))
  ensemble = metrics.Ensemble.of(samples, annotations, ari, iou)
  higher = [metrics.SCORES[name].higher_is_better for name in names]
  values = []  # in the order of `columns`
  for count in _counts(len(samples)):
    first, scores = samples[:count], of_samples[:count]
    if count == 1:
      values.append(of_samples.mean(axis=0))
    else:
      joint = consensus.consensus(first)
      answer = [metrics.of_regions(a, joint) for a in annotations]
      oracle = np.where(higher, scores.max(axis=0), scores.min(axis=0))
      values.append(of_samples[consensus.medoid(first)])
      values += [np.mean(answer, axis=0), oracle]
    of_set = metrics.compute('ensemble', ensemble.first(count))
    values.append(list(of_set.values()))
  return np.concatenate(values)


def summarize(scores: np.ndarray, num_samples: int) -> dict[str, dict]:
  """Averages the scores of ensembles over images.

  Args:
    scores: float [M, K], one row per image as from `score`; nan is left out.
    num_samples: number of samples per image, N.

  Returns:
    {N': {answer: {score: mean}}} for N' = 1, 2, 4, ... up to N; the mean is
    None if no image had anything to score.
  """
  summary: dict[str, dict] = {}
  for column, values in zip(columns(num_samples), scores.T, strict=True):
    count, answer, name = column
    values = values[~np.isnan(values)]
    of_answer = summary.setdefault(str(count), {}).setdefault(answer, {})
    of_answer[name] = float(values.mean()) if len(values) else None
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


def _counts(num_samples):
  return [2**i for i in range(num_samples.bit_length())]
