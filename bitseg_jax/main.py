"""Trains and evaluates: `python -m bitseg_jax.main --config=... --workdir=...`.

--mode=train_and_eval (default), train, or eval (needs only --workdir).
"""

import logging
import os
import pathlib
import sys

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from bitseg_jax import checkpoint, cli, evaluate, reports, train

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, such as configs/quickstart.py.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of the run: checkpoints, logs, results.'
)
_MODE = flags.DEFINE_enum(
  'mode', 'train_and_eval', ['train_and_eval', 'train', 'eval'], 'What to do.'
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'Join the other processes of a cluster that JAX knows (TPU pod, SLURM, ...).',
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'host:port of process 0, to join without a cluster.'
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'Number of processes, with --coordinator.'
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Number of this process from 0, with --coordinator.'
)


def main(argv: list[str]) -> None:
  """Runs what the flags say.

  User errors end in one line and exit code 1. A run that was told to stop, and
  saved, ends with os.EX_TEMPFAIL (75), so that what started it can go on.
  """
  try:
    if len(argv) > 1:
      raise ValueError(f'unexpected argument {argv[1]!r}; flags begin with --')
    run()
  except (ValueError, OSError, train.NonFiniteLossError) as error:
    if os.environ.get('BITSEG_TRACEBACK'):
      raise
    cli.fail(error)


def run() -> None:
  """Reads the config, joins the other processes, trains, evaluates."""
  logging.basicConfig(level=logging.INFO, format='%(message)s', force=True)
  # Ours are the root logger's; libraries may speak of errors only.
  for library in ('absl', 'jax'):
    logging.getLogger(library).setLevel(logging.ERROR)
  if not _WORKDIR.value:
    raise ValueError('--workdir is missing; give the directory of the run')
  if _DISTRIBUTED.value or _COORDINATOR.value:
    jax.distributed.initialize(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
  workdir = pathlib.Path(_WORKDIR.value)
  if not jax.config.jax_compilation_cache_dir:
    # What evaluation and the next start need is compiled once.
    jax.config.update('jax_compilation_cache_dir', f'{workdir}/compiled')
  config = _CONFIG.value
  if _MODE.value == 'eval':
    saved = ConfigDict(checkpoint.read_config(workdir))
    if config is not None:  # its way of sampling and scoring counts
      saved.sample, saved.eval = config.sample, config.eval
    config = saved
  elif config is None:
    raise ValueError('--config is missing; try --config=configs/quickstart.py')
  else:
    workdir.mkdir(parents=True, exist_ok=True)
    if not train.train(config, workdir):
      sys.exit(os.EX_TEMPFAIL)
  if _MODE.value != 'train':
    print(reports.format_results(evaluate.evaluate(config, workdir)))
    several = '_*' if len(config.data.dirs) > 1 else ''
    print(
      f'results: {workdir}/results.json  '
      f'gallery: {workdir}/gallery{several}.png'
    )


if __name__ == '__main__':
  app.run(main, flags_parser=cli.parse_flags)
