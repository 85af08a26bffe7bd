"""Trains a model and evaluates it.

  bitseg train --config=quickstart --workdir=runs/quickstart
  python -m bitseg_jax.main --config=configs/main.py --workdir=DIR \\
    [--mode=train_and_eval|train|eval] \\
    [--config.train.batch_size=16 ...]

--config is a file, or the name of a config in the package. --mode=eval needs
only --workdir, which may be one step, RUN/checkpoints/STEP; with --config, its
sections eval and sample count, and the flags
--config.data.{eval_split,dir,dirs,source}. To resume a run that was stopped,
repeat the same command.
"""

import logging
import os
import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from bitseg_jax import cli, interrupts
from bitseg_jax.evaluation import evaluate, reports
from bitseg_jax.runs import build, checkpoint, devices, schema
from bitseg_jax.training import train


def define_flags() -> None:
  """Defines the flags of `bitseg train`."""
  config_flags.DEFINE_config_file('config', None, 'Config file or its name.')
  flags.DEFINE_string('workdir', None, 'Folder of all that the run writes.')
  modes = ['train_and_eval', 'train', 'eval']
  flags.DEFINE_enum('mode', modes[0], modes, 'What to do.')
  flags.DEFINE_bool(
    'distributed', False, 'Join the cluster that JAX detects (TPU pod, SLURM).'
  )
  said = 'host:port of process 0, to join without a cluster.'
  flags.DEFINE_string('coordinator', None, said)
  flags.DEFINE_integer('num_processes', None, 'With --coordinator: how many.')
  flags.DEFINE_integer('process_id', None, 'With --coordinator: from 0 on.')
  said = 'Seconds to wait for the other processes.'
  flags.DEFINE_float('partner_timeout', 50, said, 1)


def main() -> int:
  """Joins the other processes, trains and evaluates; returns the exit code.

  A run that was stopped by a signal and saved a checkpoint ends with
  os.EX_TEMPFAIL (75), which tells the caller to resume it.
  """
  f = flags.FLAGS
  # The package logs to the root logger; libraries may log only errors.
  logging.basicConfig(level=logging.INFO, format='%(message)s', force=True)
  for library in ('absl', 'jax'):
    logging.getLogger(library).setLevel(logging.ERROR)
  if not f.workdir:
    raise ValueError('--workdir is missing; give the folder of the run')
  alone = not (f.distributed or f.coordinator)
  if alone and not (f.num_processes is None and f.process_id is None):
    raise ValueError('--num_processes and --process_id need --coordinator')
  if not alone:
    group = f.coordinator, f.num_processes, f.process_id
    devices.join(*group, f.partner_timeout)
  try:
    return _run(f)
  except Exception as error:
    if jax.process_count() > 1:
      devices.leave(error)
    raise


def _run(f):
  workdir, config = pathlib.Path(f.workdir), f.config
  # Nothing is written into a step: it would count as damaged.
  run, step = checkpoint.run_and_step(workdir)
  output = run if step is None else run / f'at_step_{step}'
  if not jax.config.jax_compilation_cache_dir:
    # Evaluation and the next start reuse what has been compiled.
    jax.config.update('jax_compilation_cache_dir', f'{run}/compiled')
  if f.mode == 'eval':
    saved = checkpoint.read_config(workdir)
    if config is not None:  # it decides how to sample and score
      named = config_flags.get_override_values(f['config'])
      saved = build.evaluated(saved, config, named)
    config = saved
  elif config is None:
    raise ValueError('--config is missing; try --config=quickstart')
  elif step is not None:
    raise ValueError(
      f'--workdir={workdir} is a step of a run; training takes the run, {run}'
    )
  else:
    named = config_flags.get_override_values(f['config'])
    if line := schema.fit_warmup_and_decay(config, named):
      logging.info(line)
    workdir.mkdir(parents=True, exist_ok=True)
    if not train.train(config, workdir):
      return os.EX_TEMPFAIL
  if f.mode != 'train':
    if jax.process_count() > 1:
      interrupts.install()  # jax has taken SIGTERM, on which training ends
    if not jax.process_index():
      output.mkdir(exist_ok=True)
      if not os.access(output, os.W_OK):
        raise PermissionError(f'{output} cannot be written to')
    results = evaluate.evaluate(config, workdir, output)
    if jax.process_index():
      return 0
    data, several = config.data, '_*' * (len(config.data.dirs) > 1)
    scored = f'{data.eval_split} of {", ".join(data.dirs or [data.dir])}'
    if data.source != 'tfds':
      scored = f'held-out {data.source} scenes'
    print(f'{reports.format_results(results)}\nscored: {scored}')
    print(
      f'results: {output}/results.json  gallery: {output}/gallery{several}.png'
    )
  return 0


if __name__ == '__main__':
  cli.run(define_flags, main)
