"""What a sweep shows people: its table, which orderings hold, and its plot."""

import itertools
import math
import pathlib
import re
import textwrap
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax.evaluation import pictures
from bitseg_jax.runs.log import whole_file, write_json

Scores = dict[int, tuple[float, float]]  # by seed: ARI, IoU
_MARGIN = 0.08  # beside the data, as a share of what they span


class Sweep(NamedTuple):
  """One table or figure of the paper.

  Attributes:
    name: of its files.
    title: what it shows.
    rows: by name of the row, the settings that differ from the base config,
      as {'section.key': value}.
    paper: by name of the row, published (ARI, IoU), where there is one.
    x_label: what the rows' names count, '' where they count nothing.
    answers: by name of the row, (answer, N) of ensembles.ANSWERS to score
      instead of the mean over samples.
  """

  name: str
  title: str
  rows: dict[str, dict[str, Any]]
  paper: dict[str, tuple[float, float]]
  x_label: str
  answers: dict[str, tuple[str, int]]


def write_report(
  sweep: Sweep,
  scores: dict[str, Scores],
  folder: pathlib.Path,
  plot_format: str = 'png',
) -> None:
  """Writes the table, the scores and the plot of a sweep.

  Args:
    sweep: the rows.
    scores: by name of the row, of the seeds that are done.
    folder: gets <name>.md, <name>.json and the plot.
    plot_format: one of pictures.PLOT_FORMATS, which ends the plot's name.
  """
  folder.mkdir(parents=True, exist_ok=True)
  text = format_table(sweep, scores)
  with whole_file(folder / f'{sweep.name}.md') as file:
    file.write(text)
  write_json(
    folder / f'{sweep.name}.json',
    {
      name: {str(seed): pair for seed, pair in of_row.items()}
      for name, of_row in scores.items()
    },
  )
  draw(sweep, scores, folder / f'{sweep.name}.{plot_format}')


def _spread(values):
  """'mean +- standard deviation' over seeds, as text."""
  if not values:
    return '-'
  mean = f'{np.mean(values):.3f}'
  if len(values) == 1:
    return mean
  return f'{mean} ± {np.std(values, ddof=1):.3f}'


def format_table(sweep: Sweep, scores: dict[str, Scores]) -> str:
  """Markdown: a line a row, then which of the paper's orderings hold."""
  lines = [
    f'### {sweep.title}',
    '',
    '| | ARI | IoU | seeds | paper ARI | paper IoU |',
    '|---|---|---|---|---|---|',
  ]
  for name in sweep.rows:
    pairs = list(scores[name].values())
    ari, iou = ([pair[i] for pair in pairs] for i in (0, 1))
    published = [f'{value:.3f}' for value in sweep.paper.get(name, ())]
    cells = [name, _spread(ari), _spread(iou), str(len(pairs))]
    lines.append(f'| {" | ".join(cells + (published or ["-", "-"]))} |')
  orderings = compare_orderings(sweep, scores)
  return '\n'.join([*lines, '', *orderings]).rstrip() + '\n'


def compare_orderings(sweep: Sweep, scores: dict[str, Scores]) -> list[str]:
  """For neighbours in the paper's order by ARI: does ours agree?

  The error is that of the difference of two means; with one seed it is not
  known, and not given.
  """
  known = [n for n in sweep.paper if scores.get(n)]
  order = sorted(known, key=lambda name: sweep.paper[name][0])
  lines = []
  for low, high in itertools.pairwise(order):
    a, b = ([p[0] for p in scores[n].values()] for n in (low, high))
    gap = np.mean(b) - np.mean(a)
    error = ''
    if len(a) > 1 and len(b) > 1:
      variance = np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b)
      error = f' ± {math.sqrt(variance):.3f}'
    verdict = 'holds' if gap > 0 else 'does not hold'
    lines.append(f'- {low} < {high}: {verdict} ({gap:+.3f}{error} ARI)')
  return lines


def draw(sweep: Sweep, scores: dict[str, Scores], path: pathlib.Path) -> None:
  """Draws ARI and IoU of the rows, mean and spread over seeds.

  Rows that are all named 'KIND, NUMBER' become a line a kind over the numbers.
  The axes span the data, not 0 to 1: rows often differ by a few hundredths.

  Args:
    sweep: the rows.
    scores: by name of the row, of the seeds that are done.
    path: of the plot, ending in one of pictures.PLOT_FORMATS.
  """
  figure = pictures.new_figure()
  if all(re.fullmatch(r'.+, \d+', name) for name in sweep.rows):
    _draw_lines(figure, sweep, scores)
  elif sweep.x_label:
    _draw_curve(figure, sweep, scores)
  else:
    _draw_rows(figure, sweep, scores)
  wide = round(9 * figure.get_figwidth())  # letters
  figure.suptitle(textwrap.fill(sweep.title, wide), fontsize=10)
  pictures.save_figure(figure, path)


def _means(values):
  """Means over seeds and their standard deviations, of one list for each."""
  spreads = [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values]
  return [np.mean(v) for v in values], spreads


def _of_rows(scores, names, i):
  """(means, spreads) of score i of some rows."""
  return _means([[pair[i] for pair in scores[name].values()] for name in names])


def _draw_lines(figure, sweep, scores):
  """Two panels, ARI and IoU: a line for each kind over the numbers."""
  figure.set_size_inches(9.5, 4.2)
  kinds: dict[str, dict[int, str]] = {}
  for name, of_seed in scores.items():
    if of_seed:
      kind, number = name.rsplit(', ', 1)
      kinds.setdefault(kind, {})[int(number)] = name
  numbers = sorted({n for of_kind in kinds.values() for n in of_kind})
  panels = figure.subplots(1, 2)
  for i, (axes, label) in enumerate(zip(panels, ('ARI', 'IoU'), strict=True)):
    for kind, of_kind in kinds.items():
      present = sorted(of_kind)
      means, spreads = _of_rows(scores, [of_kind[n] for n in present], i)
      at = [numbers.index(n) for n in present]
      style = {'fmt': '-o', 'markersize': 4, 'capsize': 3, 'label': kind}
      axes.errorbar(at, means, spreads, **style)
    axes.set_xticks(range(len(numbers)), numbers)
    axes.set_xlabel(sweep.x_label)
    axes.set_ylabel(f'{label} (higher is better)')
    axes.margins(y=_MARGIN)
    axes.grid(alpha=0.3)
  _legend(panels[1])


def _draw_curve(figure, sweep, scores):
  """ARI and IoU along rows that count something."""
  names = [name for name in sweep.rows if scores[name]]
  figure.set_size_inches(np.clip(0.9 * len(names) + 3, 6, 9), 3.6)
  axes = figure.subplots()
  for i, label in enumerate(('ARI', 'IoU')):
    means, spreads = _of_rows(scores, names, i)
    style = {'fmt': '-o', 'color': f'C{i}', 'label': label, 'capsize': 3}
    axes.errorbar(range(len(names)), means, yerr=spreads, **style)
    at, values = _published(sweep, names, i)
    if at:
      axes.plot(at, values, **_paper_style(i, label))
  axes.set_xticks(range(len(names)), names)
  axes.set_xlabel(sweep.x_label)
  axes.set_ylabel('Score (higher is better)')
  axes.margins(y=_MARGIN)
  axes.grid(axis='y', alpha=0.3)
  _legend(axes)


def _draw_rows(figure, sweep, scores):
  """A line of the picture for each row, whose name so has room."""
  names = [name for name in sweep.rows if scores[name]]
  figure.set_size_inches(7.5, max(2.6, 0.45 * len(names) + 1.4))
  axes = figure.subplots()
  for i, label in enumerate(('ARI', 'IoU')):
    means, spreads = _of_rows(scores, names, i)
    apart = 0.16 * i - 0.08  # else equal scores would hide each other
    style = {'fmt': 'o', 'color': f'C{i}', 'label': label, 'capsize': 3}
    axes.errorbar(means, np.arange(len(names)) + apart, xerr=spreads, **style)
    at, values = _published(sweep, names, i)
    if at:
      axes.plot(values, np.array(at) + apart, **_paper_style(i, label))
  axes.set_yticks(range(len(names)), names)
  axes.set_ylim(len(names) - 0.5, -0.5)  # the first row on top
  axes.set_xlabel('Score (higher is better)')
  axes.margins(x=_MARGIN)
  axes.grid(alpha=0.3)
  _legend(axes)


def _published(sweep, names, i):
  """(positions, values) of the rows that the paper has score i of."""
  at = [k for k, name in enumerate(names) if name in sweep.paper]
  return at, [sweep.paper[names[k]][i] for k in at]


def _paper_style(i, label):
  return {
    'marker': 'D',
    'linestyle': 'none',
    'markerfacecolor': 'none',
    'color': f'C{i}',
    'label': f'{label}, paper (EntitySeg)',
  }


def _legend(axes):
  """Beside the axes, where it hides no data."""
  axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
