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
_TITLES = 'ARI', 'IoU'


class Sweep(NamedTuple):
  """One table or figure of the paper; its dictionaries are by name of the row.

  Attributes:
    name: of its files.
    title: what it shows.
    rows: settings that differ from the base config, {'section.key': value}.
    paper: published (ARI, IoU), where there is one.
    x_label: what the rows' names count, '' where they count nothing.
    answers: (answer, N) of ensembles.ANSWERS to score instead of the mean over
      samples.
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
  """Writes <name>.md, <name>.json and the plot of a sweep to a folder.

  `scores` are by name of the row, of the seeds that are done, and `plot_format`
  is one of pictures.PLOT_FORMATS.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with whole_file(folder / f'{sweep.name}.md') as file:
    file.write(format_table(sweep, scores))
  of_seeds = {
    name: {str(seed): pair for seed, pair in of_row.items()}
    for name, of_row in scores.items()
  }
  write_json(folder / f'{sweep.name}.json', of_seeds)
  draw(sweep, scores, folder / f'{sweep.name}.{plot_format}')


def format_table(sweep: Sweep, scores: dict[str, Scores]) -> str:
  """Markdown: one line per row, then which of the paper's orderings hold."""
  lines = [
    f'### {sweep.title}',
    '',
    '| | ARI | IoU | seeds | paper ARI | paper IoU |',
    '|---|---|---|---|---|---|',
  ]
  for name in sweep.rows:
    pairs = list(scores[name].values())
    cells = [
      f'{np.mean(of):.3f}'
      + (f' ± {np.std(of, ddof=1):.3f}' if len(of) > 1 else '')
      for of in zip(*pairs, strict=True)
    ]
    published = [f'{value:.3f}' for value in sweep.paper.get(name, ())]
    row = [name, *(cells or '--'), str(len(pairs)), *(published or '--')]
    lines.append(f'| {" | ".join(row)} |')
  lines += ['', *compare_orderings(sweep, scores)]
  return '\n'.join(lines).rstrip() + '\n'


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

  Rows that count something become curves, one for each KIND where they are all
  named 'KIND, NUMBER'; others one line of the picture each, so that their names
  have room. The axes span the data: rows often differ by a few hundredths.
  """
  figure = pictures.new_figure()
  names = [name for name in sweep.rows if scores[name]]
  paper = [name for name in names if name in sweep.paper]
  found = {name: np.array(list(scores[name].values())) for name in names}
  means = {name: each.mean(axis=0) for name, each in found.items()}
  spreads = {
    name: each.std(axis=0, ddof=1) if len(each) > 1 else np.zeros(2)
    for name, each in found.items()
  }
  of = lambda values, rows, i: [values[name][i] for name in rows]
  style = {'capsize': 3, 'markersize': 4}
  published = {'marker': 'D', 'linestyle': 'none', 'markerfacecolor': 'none'}
  if sweep.x_label:
    figure.set_size_inches(9.5, 4.2)
    panels = figure.subplots(1, 2)
    number = lambda name: name.rpartition(', ')[2]
    kinds: dict[str, list[str]] = {}
    for name in names:
      kind = re.match(r'(.+), \d+$', name)
      kinds.setdefault(kind[1] if kind else '', []).append(name)
    ticks = list(dict.fromkeys(map(number, names)))
    if '' not in kinds:
      ticks.sort(key=int)
    at = lambda name: ticks.index(number(name))
    for i, axes in enumerate(panels):
      for kind, rows in kinds.items():
        rows.sort(key=at)
        values = of(means, rows, i), of(spreads, rows, i)
        axes.errorbar(
          list(map(at, rows)), *values, fmt='-o', label=kind, **style
        )
      if paper:
        values, label = of(sweep.paper, paper, i), 'paper (EntitySeg)'
        axes.plot(list(map(at, paper)), values, label=label, **published)
      axes.set_xticks(range(len(ticks)), ticks)
      axes.set_xlabel(sweep.x_label)
      axes.set_ylabel(f'{_TITLES[i]} (higher is better)')
  else:
    figure.set_size_inches(7.5, max(2.6, 0.45 * len(names) + 1.4))
    panels = [axes := figure.subplots()]
    for i, title in enumerate(_TITLES):
      apart = 0.16 * i - 0.08  # else equal scores would hide each other
      at = lambda name, apart=apart: names.index(name) + apart
      more = {'xerr': of(spreads, names, i), 'fmt': 'o', 'color': f'C{i}'}
      values, heights = of(means, names, i), list(map(at, names))
      axes.errorbar(values, heights, label=title, **more, **style)
      if paper:
        values, heights = of(sweep.paper, paper, i), list(map(at, paper))
        more = {'label': f'{title}, paper (EntitySeg)', 'color': f'C{i}'}
        axes.plot(values, heights, **more, **published)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the first row on top
    axes.set_xlabel('Score (higher is better)')
  for axes in panels:
    axes.margins(0.08)
    axes.grid(alpha=0.3)
  if axes.get_legend_handles_labels()[1]:  # beside the axes, over no data
    axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
  wide = round(9 * figure.get_figwidth())  # letters
  figure.suptitle(textwrap.fill(sweep.title, wide), fontsize=10)
  pictures.save_figure(figure, path)
