"""What a sweep shows people: its table and its plot."""

import itertools
import pathlib
import textwrap
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax.evaluation import pictures

Scores = dict[int, tuple[float, float]]  # by seed: ARI, IoU


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


def format_table(sweep: Sweep, scores: dict[str, Scores]) -> str:
  """Markdown: one line per row, beside the paper's."""
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
  return '\n'.join(lines) + '\n'


def draw(sweep: Sweep, scores: dict[str, Scores], path: pathlib.Path) -> None:
  """Draws ARI and IoU of the rows, mean and spread over seeds.

  Rows that count something, 'KIND, NUMBER' or NUMBER, become a curve for each
  KIND; others stand side by side. The axes span the data: rows often differ by
  a few hundredths.
  """
  curves: dict[str, dict[str, str]] = {}  # by kind: tick -> row
  for name in filter(scores.get, sweep.rows):
    kind, _, number = name.rpartition(', ')
    kind, tick = (kind, number) if sweep.x_label else ('', name)
    curves.setdefault(kind, {})[tick] = name
  ticks = list(dict.fromkeys(itertools.chain(*curves.values())))
  if sweep.x_label:
    ticks.sort(key=float)
  figure = pictures.new_figure()
  figure.set_size_inches(9.5, 4.2)
  for i, axes in enumerate(figure.subplots(1, 2)):
    for kind, rows in curves.items():
      at = sorted(rows, key=ticks.index)
      each = [[pair[i] for pair in scores[rows[t]].values()] for t in at]
      axes.errorbar(
        [ticks.index(tick) for tick in at],
        [np.mean(values) for values in each],
        [np.std(values, ddof=1) if len(values) > 1 else 0 for values in each],
        fmt='o-' if sweep.x_label else 'o',
        label=kind or 'ours',
        capsize=3,
        markersize=4,
      )
      paper = {t: sweep.paper[rows[t]][i] for t in at if rows[t] in sweep.paper}
      if paper:
        places = [ticks.index(tick) for tick in paper]
        axes.plot(places, list(paper.values()), 'D', label='paper (EntitySeg)')
    turned = {} if sweep.x_label else {'rotation': 30, 'ha': 'right'}
    axes.set_xticks(range(len(ticks)), ticks, **turned)
    axes.set_xlabel(sweep.x_label)
    axes.set_ylabel(f'{("ARI", "IoU")[i]} (higher is better)')
    axes.margins(0.08)
    axes.grid(alpha=0.3)
  axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
  figure.suptitle(textwrap.fill(sweep.title, 86), fontsize=10)
  pictures.save_figure(figure, path)
