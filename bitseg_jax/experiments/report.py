"""What a sweep shows people: its table and its plot."""

import pathlib
import textwrap
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax.evaluation import pictures

BySeed = dict[int, tuple[float, float]]  # by seed: ARI, IoU


class Sweep(NamedTuple):
  """One table or figure of the paper; dictionaries are by name of the row."""

  name: str  # of its files
  title: str  # what it shows
  rows: dict[str, dict[str, Any]]  # settings {'section.key': value} that differ
  paper: dict[str, tuple[float, float]]  # published (ARI, IoU)
  # (answer, N) of ensembles.ANSWERS to score instead of the mean over samples.
  answers: dict[str, tuple[str, int]]


def format_table(sweep: Sweep, scores: dict[str, BySeed]) -> str:
  """Markdown: one line per row, beside the paper's."""
  lines = [
    f'### {sweep.title}',
    '',
    '| | ARI | IoU | seeds | paper ARI | paper IoU |',
    '|---|---|---|---|---|---|',
  ]
  none = ['-', '-']
  for name in sweep.rows:
    pairs = list(scores[name].values())
    cells = [
      f'{np.mean(of):.3f}'
      + (f' ± {np.std(of, ddof=1):.3f}' if len(of) > 1 else '')
      for of in zip(*pairs, strict=True)
    ]
    published = [f'{value:.3f}' for value in sweep.paper.get(name, ())]
    row = [name, *(cells or none), str(len(pairs)), *(published or none)]
    lines.append(f'| {" | ".join(row)} |')
  return '\n'.join(lines) + '\n'


def draw(sweep: Sweep, scores: dict[str, BySeed], path: pathlib.Path) -> None:
  """Draws ARI and IoU of the rows, mean and spread over seeds.

  The axes span the data: rows often differ by a few hundredths.
  """
  names = [name for name in sweep.rows if scores[name]]
  figure = pictures.new_figure()
  figure.set_size_inches(9.5, 4.2)
  for i, axes in enumerate(figure.subplots(1, 2)):
    each = [[pair[i] for pair in scores[name].values()] for name in names]
    spread = [np.std(v, ddof=1) if len(v) > 1 else 0 for v in each]
    means = list(map(np.mean, each))
    axes.errorbar(names, means, spread, fmt='o', label='ours', capsize=3)
    paper = {n: sweep.paper[n][i] for n in names if n in sweep.paper}
    if paper:
      axes.plot(paper.keys(), paper.values(), 'D', label='paper (EntitySeg)')
    axes.tick_params('x', rotation=30 if len(names) < 10 else 90)
    axes.set_ylabel(f'{("ARI", "IoU")[i]} (higher is better)')
    axes.margins(0.08)
    axes.grid(alpha=0.3)
  axes.legend(fontsize=8)
  figure.suptitle(textwrap.fill(sweep.title, 86), fontsize=10)
  pictures.save_figure(figure, path)
