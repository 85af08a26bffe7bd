"""Runs an experiment of the paper: trains missing runs and writes the table.

bitseg sweep --sweep=table3 --size=tiny --seeds=0,1,2
  [--output=runs/sweeps] [--data=DIR]

To resume a stopped sweep, repeat the command; finished runs are kept.
Writes <output>/<size>/<sweep>.md, .json and a plot, .png.

Several jobs share the runs if each is given other --seeds; the same command
with all of them then writes the table.
"""

import importlib
import os
import pathlib
import pkgutil

from absl import flags

from bitseg_jax import cli
from bitseg_jax.configs import sweeps as configs
from bitseg_jax.configs.sweeps.sizes import SIZES
from bitseg_jax.experiments import sweeps
from bitseg_jax.experiments.report import Sweep
from bitseg_jax.runs import programs


def open_sweep(name: str) -> Sweep:
  """Loads configs/sweeps/<name>.py; ValueError if there is none."""
  found = {module.name for module in pkgutil.iter_modules(configs.__path__)}
  known = sorted(found - {'sizes'})
  if name not in known:
    raise ValueError(f'--sweep={name}: choose one of {", ".join(known)}')
  module = importlib.import_module(f'{configs.__name__}.{name}')
  title, answers = module.__doc__.strip(), getattr(module, 'ANSWERS', {})
  return Sweep(name, title, module.ROWS, module.PAPER, answers)


def define_flags() -> None:
  """Defines the flags of `bitseg sweep`."""
  names = 'Sweeps to run: names in configs/sweeps.'
  flags.DEFINE_list('sweep', None, names, required=True)
  flags.DEFINE_enum('size', 'tiny', list(SIZES), 'Of the model and its data.')
  flags.DEFINE_list('seeds', ['0'], 'Seeds; each row is trained with each.')
  flags.DEFINE_string('output', 'runs/sweeps', 'Folder of runs and tables.')
  flags.DEFINE_string('data', '', "Prepared dataset; '' uses that of the size.")


def main() -> int:
  """Runs the sweeps that the flags name, one after the other.

  Returns:
    The exit code; os.EX_TEMPFAIL (75), as of a training, if it was stopped.
  """
  f = flags.FLAGS
  if not all(seed.isdecimal() for seed in f.seeds):
    raise ValueError(f'--seeds={",".join(f.seeds)}: give numbers from 0')
  seeds = list(map(int, f.seeds))
  opened = [open_sweep(name) for name in f.sweep]
  folder = pathlib.Path(f.output) / f.size
  programs.keep_compiled(folder / 'compiled')
  base = SIZES[f.size]()
  if f.data:
    base.data.dir = f.data
  for sweep in opened:
    if not sweeps.run(sweep, base, seeds, folder):
      print('stopped; run the same command to resume')
      return os.EX_TEMPFAIL
    print((folder / f'{sweep.name}.md').read_text())
  return 0


if __name__ == '__main__':
  cli.run(define_flags, main)
