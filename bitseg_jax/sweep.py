"""Runs an experiment of the paper: trains what is missing, writes the table.

python -m bitseg_jax.sweep --sweep=table3 --size=tiny --seeds=0,1,2
  [--output=runs/sweeps] [--data=DIR]

Stopped, it goes on by the same command; what is done is not done again.
Writes <output>/<size>/<sweep>.md, .json and .png.
"""

import importlib
import logging
import pathlib

import jax
from absl import app, flags

from bitseg_jax import cli, sweeps, train


def open_sweep(name: str) -> sweeps.Sweep:
  """Reads configs/sweeps/<name>.py.

  Raises:
    ValueError: if there is none of that name.
  """
  folder = pathlib.Path(importlib.import_module('configs.sweeps').__file__)
  names = {path.stem for path in folder.parent.glob('*.py')}
  known = sorted(names - {'__init__', 'sizes'})
  if name not in known:
    raise ValueError(f'--sweep={name}: choose one of {", ".join(known)}')
  module = importlib.import_module(f'configs.sweeps.{name}')
  return sweeps.Sweep(
    name,
    module.__doc__.strip(),
    module.ROWS,
    module.PAPER,
    module.X_LABEL,
    getattr(module, 'ANSWERS', {}),
  )


def main(_) -> None:
  """Does what the flags say; user errors end in one line and exit code 1."""
  logging.basicConfig(level=logging.WARNING, format='%(message)s', force=True)
  logging.getLogger('absl').setLevel(logging.ERROR)
  f = flags.FLAGS
  try:
    sizes = importlib.import_module('configs.sweeps.sizes').SIZES
    if f.size not in sizes:
      raise ValueError(f'--size={f.size}: choose one of {", ".join(sizes)}')
    folder = pathlib.Path(f.output) / f.size
    if not jax.config.jax_compilation_cache_dir:
      jax.config.update('jax_compilation_cache_dir', f'{folder}/compiled')
    base = sizes[f.size]()
    if f.data:
      base.data.dir = f.data
    for name in f.sweep:
      sweep = open_sweep(name)
      if not sweeps.run(sweep, base, [int(s) for s in f.seeds], folder):
        print('stopped; the same command goes on')
        return
      print((folder / f'{name}.md').read_text())
  except (ValueError, OSError, train.NonFiniteLossError) as error:
    cli.fail(error)


if __name__ == '__main__':
  flags.DEFINE_list('sweep', None, 'Which of configs/sweeps.')
  flags.DEFINE_string('size', 'tiny', 'tiny, tiny_long, bsds or paper.')
  flags.DEFINE_list('seeds', ['0'], 'One training of each row for each.')
  flags.DEFINE_string('output', 'runs/sweeps', 'Where runs and tables lie.')
  flags.DEFINE_string('data', '', "Prepared dataset, not the config's.")
  flags.mark_flag_as_required('sweep')
  app.run(main, flags_parser=cli.parse_flags)
