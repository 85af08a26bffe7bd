"""Experiments: trains what is missing, skips what is done.

A run's folder is named by what was trained, a hash of its config; rows and
sweeps that train the same share it. Within lies one folder of results for each
way it was sampled; report.py writes the table.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from bitseg_jax.configs.base import get_config as get_defaults
from bitseg_jax.evaluation import evaluate
from bitseg_jax.experiments import report
from bitseg_jax.experiments.report import BySeed, Sweep
from bitseg_jax.runs import build
from bitseg_jax.runs.log import whole_file, write_json
from bitseg_jax.training import train


def configured(
  base: ConfigDict, overrides: dict[str, Any], seed: int
) -> ConfigDict:
  """The config of one row and seed; raises if it cannot work."""
  config = base.copy_and_resolve_references()
  config.seed = seed
  try:
    config.update_from_flattened_dict(overrides)
  except (KeyError, TypeError) as error:  # of several lines
    raise ValueError(f'a row of the sweep: {error.args[0]}') from error
  build.build(config)
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
  """What a config's results file holds, after what is missing is done.

  None if training was stopped on the way.
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
) -> bool:
  """Runs every row with every seed; writes table and plot after each run.

  The folder has all sweeps of a size, of which base is the config. Returns
  False if it was stopped on the way; call it again to resume.
  """
  scores: dict[str, BySeed] = {name: {} for name in sweep.rows}
  todo = [
    (name, seed, configured(base, overrides, seed))
    for seed in seeds
    for name, overrides in sweep.rows.items()
  ]
  # First what is done, or a report that is there would lose it for a while.
  todo.sort(key=lambda item: not results_path(item[-1], folder).is_file())
  for i, (name, seed, config) in enumerate(todo):
    done = results_path(config, folder).is_file()
    place = f'[{i + 1} of {len(todo)}] {sweep.name}: {name}, seed {seed}'
    print(place + ', done before' * done)
    results = run_row(config, folder)
    if results is None:
      return False
    scores[name][seed] = score_of(results, sweep.answers.get(name))
    if not done or i + 1 == len(todo):
      with whole_file(folder / f'{sweep.name}.md') as file:
        file.write(report.format_table(sweep, scores))
      write_json(folder / f'{sweep.name}.json', scores)
      report.draw(sweep, scores, folder / f'{sweep.name}.png')
  return True


def score_of(
  results: dict[str, Any], answer: tuple[str, int] | None = None
) -> tuple[float, float]:
  """(ARI, IoU) in a results file, the mean over its datasets.

  `answer` is one of Sweep.answers, or None for the mean over samples.
  """
  each = results.get('datasets', {'': results}).values()
  if answer is None:
    scores = [of['ema'] for of in each]
  else:
    kind, count = answer
    scores = [of['by_num_samples'][str(count)][kind] for of in each]
  return tuple(float(np.mean([of[s] for of in scores])) for s in ('ari', 'iou'))
