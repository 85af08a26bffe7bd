"""Experiments: trains what is missing, skips what is done, draws the table.

A run's folder is named by what was trained, a hash of its config; rows and
sweeps that train the same share it. Within lies one folder of results for each
way it was sampled.
"""

import hashlib
import itertools
import json
import math
import pathlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from bitseg_jax.configs.base import get_config as get_defaults
from bitseg_jax.evaluation import evaluate
from bitseg_jax.runtime import experiment
from bitseg_jax.runtime.writers import whole_file, write_json
from bitseg_jax.training import train

Scores = dict[int, tuple[float, float]]  # by seed: ARI, IoU


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


def configured(
  base: ConfigDict, overrides: dict[str, Any], seed: int
) -> ConfigDict:
  """The config of one row and seed.

  Raises:
    ValueError: if it names a key that is not there, or cannot work.
  """
  config = base.copy_and_resolve_references()
  config.seed = seed
  for name, value in overrides.items():
    section, key = name.split('.')
    if key not in config.get(section, {}):
      raise ValueError(f'a row sets {name!r}, which is no key of the config')
    config[section][key] = value
  experiment.build(config)
  return config


def _digest(config, sections):
  """Names what the sections say; a setting at its default changes nothing."""
  told, defaults = (
    flatten_dict(json.loads(json.dumps(c.to_dict(), default=list)), sep='.')
    for c in (config, get_defaults())
  )
  differing = {
    name: value
    for name, value in told.items()
    if name.split('.')[0] in sections and value != defaults[name]
  }
  text = json.dumps(differing, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_dir(config: ConfigDict, folder: pathlib.Path) -> pathlib.Path:
  """Where a config's training lies: sampling and scoring do not count."""
  trained = [name for name in config if name not in ('sample', 'eval')]
  return folder / 'runs' / _digest(config, trained)


def results_path(config: ConfigDict, folder: pathlib.Path) -> pathlib.Path:
  """Where the results of a config lie: one folder a way of sampling."""
  way = _digest(config, ('sample', 'eval'))
  return run_dir(config, folder) / f'eval-{way}' / 'results.json'


def run_row(config: ConfigDict, folder: pathlib.Path) -> dict[str, Any] | None:
  """Trains and evaluates one config, as far as that is not done.

  Args:
    config: the run.
    folder: holds all runs of this size.

  Returns:
    What its results file holds; None if training was stopped on the way.
  """
  path, workdir = results_path(config, folder), run_dir(config, folder)
  if not path.is_file():
    path.parent.mkdir(parents=True, exist_ok=True)
    if not train.train(config, workdir):  # takes no step where all are done
      return None
    evaluate.evaluate(config, workdir, path.parent)
  return json.loads(path.read_text())


def run(
  sweep: Sweep,
  base: ConfigDict,
  seeds: Sequence[int],
  folder: pathlib.Path,
  only: Collection[pathlib.Path] | None = None,
  say: Callable[[str], None] = print,
) -> bool:
  """Runs every row with every seed; writes table and plot after each run.

  Args:
    sweep: the rows.
    base: config of the size.
    seeds: one training each.
    folder: where all sweeps of this size lie.
    only: workdirs of the runs to do, without a table; None = all runs.
    say: told of every row.

  Returns:
    False if it was stopped on the way; the same call goes on.
  """
  configs = _configs(sweep, base, seeds)
  if only is not None:
    mine = lambda item: run_dir(item[1], folder) in only
    configs = dict(filter(mine, configs.items()))
  scores: dict[str, Scores] = {name: {} for name in sweep.rows}
  for i, ((name, seed), config) in enumerate(configs.items()):
    done = results_path(config, folder).is_file()
    say(
      f'[{i + 1} of {len(configs)}] {sweep.name}: {name}, seed {seed}'
      + ', done before' * done
    )
    results = run_row(config, folder)
    if results is None:
      return False
    scores[name][seed] = score_of(results, sweep.answers.get(name))
    if only is None:
      write_report(sweep, scores, folder)
  return True


def _configs(sweep, base, seeds):
  return {
    (name, seed): configured(base, overrides, seed)
    for seed in seeds
    for name, overrides in sweep.rows.items()
  }


def part_of(
  sweeps: Sequence[Sweep],
  base: ConfigDict,
  seeds: Sequence[int],
  folder: pathlib.Path,
  part: tuple[int, int],
) -> set[pathlib.Path]:
  """Returns the workdirs of one part of the runs of all sweeps asked for."""
  index, count = part
  workdirs = [
    run_dir(config, folder)
    for sweep in sweeps
    for config in _configs(sweep, base, seeds).values()
  ]
  return set(list(dict.fromkeys(workdirs))[index::count])


def score_of(
  results: dict[str, Any], answer: tuple[str, int] | None = None
) -> tuple[float, float]:
  """(ARI, IoU) of the EMA weights: with several datasets, their mean.

  Args:
    results: what a results file holds.
    answer: see Sweep.answers; None = the mean over samples.
  """
  found = list(results.get('datasets', {'': results}).values())
  if answer is None:
    each = [of_dataset['ema'] for of_dataset in found]
  else:
    name, count = answer
    each = [
      of_dataset['by_num_samples'][str(count)][name] for of_dataset in found
    ]
  return tuple(
    float(np.mean([scores[name] for scores in each])) for name in ('ari', 'iou')
  )


def write_report(
  sweep: Sweep, scores: dict[str, Scores], folder: pathlib.Path
) -> None:
  """Writes the table, the scores and the plot of a sweep: .md, .json, .png."""
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
  draw(sweep, scores, folder / f'{sweep.name}.png')


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
  """
  if all(re.fullmatch(r'.+, \d+', name) for name in sweep.rows):
    figure = _draw_lines(sweep, scores)
  else:
    figure = _draw_rows(sweep, scores)
  figure.tight_layout()
  with whole_file(path, 'wb') as file:
    figure.savefig(file, dpi=130, format='png')


def _plot_spread(axes, at, values, **style):
  """Means of the values, lists, over seeds, with their standard deviation."""
  spread = [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values]
  axes.errorbar(at, [np.mean(v) for v in values], spread, capsize=3, **style)


def _draw_lines(sweep, scores):
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9.5, 4.2))
  figure.suptitle(sweep.title, fontsize=10)
  kinds: dict[str, dict[int, list]] = {}
  for name, of_seed in scores.items():
    if of_seed:
      kind, number = name.rsplit(', ', 1)
      kinds.setdefault(kind, {})[int(number)] = list(of_seed.values())
  numbers = sorted({n for of_kind in kinds.values() for n in of_kind})
  panels = figure.subplots(1, 2)
  for i, (axes, label) in enumerate(zip(panels, ('ARI', 'IoU'), strict=True)):
    for kind, of_kind in kinds.items():
      values = [[pair[i] for pair in of_kind[n]] for n in sorted(of_kind)]
      at = [numbers.index(n) for n in sorted(of_kind)]
      _plot_spread(axes, at, values, fmt='-o', markersize=4, label=kind)
    axes.set_xticks(range(len(numbers)), numbers)
    axes.set_xlabel(sweep.x_label)
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
  panels[1].legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
  return figure


def _draw_rows(sweep, scores):
  names = [name for name in sweep.rows if scores[name]]
  at = np.arange(len(names))
  from matplotlib.figure import Figure

  figure = Figure(figsize=(max(5, 0.9 * len(names) + 2), 3.6))
  axes = figure.subplots()
  for i, label in enumerate(('ARI', 'IoU')):
    values = [[pair[i] for pair in scores[name].values()] for name in names]
    shift = 0 if sweep.x_label else 0.16 * i - 0.08
    style = '-o' if sweep.x_label else 'o'
    _plot_spread(
      axes, at + shift, values, fmt=style, color=f'C{i}', label=label
    )
    published = [k for k, name in enumerate(names) if name in sweep.paper]
    if published:
      axes.plot(
        np.array(published) + shift,
        [sweep.paper[names[k]][i] for k in published],
        'D',
        markerfacecolor='none',
        color=f'C{i}',
        label=f'{label}, paper (EntitySeg)',
      )
  slant = {'rotation': 20, 'ha': 'right', 'rotation_mode': 'anchor'}
  axes.set_xticks(at, names, **({} if sweep.x_label else slant))
  axes.set_xlabel(sweep.x_label)
  axes.set_ylim(0, 1)
  axes.grid(axis='y', alpha=0.3)
  axes.set_title(sweep.title, fontsize=10)
  axes.legend(fontsize=8)
  return figure
