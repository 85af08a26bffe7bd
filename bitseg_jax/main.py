"""Trains a model and evaluates it.

  bitseg train --config=quickstart --workdir=runs/quickstart
  python -m bitseg_jax.main --config=configs/main.py --workdir=DIR \\
    [--mode=train_and_eval|train|eval] [--config.train.batch_size=16 ...]

--config is a file, or the name of a config in the package. --mode=eval needs
only --workdir, which may be one step, RUN/checkpoints/STEP; with --config, its
sections eval and sample count, and the flags
--config.data.{eval_split,dir,dirs,source}. Run the same command to resume.
"""

import logging
import os
import time

import jax
from absl import flags
from ml_collections import config_flags

from bitseg_jax import cli, interrupts
from bitseg_jax.evaluation import evaluate
from bitseg_jax.runs import build, checkpoint, devices, programs
from bitseg_jax.training import train


def define_flags() -> None:
  """Defines the flags of `bitseg train`."""
  config_flags.DEFINE_config_file('config', None, 'Config file or its name.')
  flags.DEFINE_string('workdir', None, 'Folder of all that the run writes.')
  modes = ['train_and_eval', 'train', 'eval']
  flags.DEFINE_enum('mode', modes[0], modes, 'What to do.')
  flags.DEFINE_bool('distributed', False, 'Join the cluster that JAX finds.')
  flags.DEFINE_string('coordinator', None, 'host:port of process 0.')
  flags.DEFINE_integer('num_processes', None, 'With --coordinator: how many.')
  flags.DEFINE_integer('process_id', None, 'With --coordinator: from 0 on.')
  flags.DEFINE_integer('partner_timeout', 50, 'Seconds to wait for others.', 1)


def main() -> int:
  """Joins the other processes, trains and evaluates; returns the exit code.

  That of a run that a signal stopped, and that has saved, is os.EX_TEMPFAIL.
  """
  f = flags.FLAGS
  # Ours is the root logger; what orbax would log as an error it raises as well.
  logging.basicConfig(level=logging.INFO, format='%(message)s', force=True)
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  logging.getLogger('jax').setLevel(logging.ERROR)
  group = f.coordinator, f.num_processes, f.process_id
  if not f.workdir:
    raise ValueError('--workdir is missing; give the folder of the run')
  if f.distributed or f.coordinator:
    devices.join(*group, f.partner_timeout)
  elif group != (None, None, None):
    raise ValueError('--num_processes and --process_id need --coordinator')
  try:
    return _run(f)
  except Exception as error:
    if jax.process_count() == 1:
      raise
    cli.say(error)
    time.sleep(2 * (jax.process_index() == 0))  # JAX aborts those it leaves
    os._exit(1)  # an exit would wait for the others


def _run(f):
  config, (run, step) = f.config, checkpoint.run_and_step(f.workdir)
  programs.keep_compiled(run / 'compiled')
  if f.mode == 'eval':
    config = checkpoint.read_config(f.workdir)
    if f.config is not None:  # it decides how to sample and score
      named = config_flags.get_override_values(f['config'])
      config = build.evaluated(config, f.config, named)
  elif config is None:
    raise ValueError('--config is missing; try --config=quickstart')
  elif step is not None:
    raise ValueError(f'{f.workdir} is a step; training takes the run, {run}')
  elif not train.train(config, run):
    return os.EX_TEMPFAIL
  if f.mode != 'train':
    if jax.process_count() > 1:
      interrupts.install()  # jax has taken SIGTERM, on which training ends
    # Nothing is written into a step: it would count as damaged.
    output = run if step is None else run / f'at_step_{step}'
    output.mkdir(exist_ok=True)
    if not os.access(output, os.W_OK):  # before the scoring, not after it
      raise PermissionError(f'{output} cannot be written to')
    results = evaluate.evaluate(config, f.workdir, output)
    if jax.process_index() == 0:
      print(evaluate.format_results(results))
      print(f'results: {output}/results.json  pictures: {output}/gallery*.png')
  return 0


if __name__ == '__main__':
  cli.run(define_flags, main)
