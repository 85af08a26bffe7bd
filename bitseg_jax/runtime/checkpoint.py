"""Checkpoints (orbax): asynchronous, atomic, each one whole or passed over.

A step under <workdir>/checkpoints/<step>/ holds the items

  params       parameters
  ema_params   their moving average
  optimizer    {'step', 'opt_state'}
  input        position of the input stream (grain)
  config       the run's config and how many processes wrote it (JSON)

apart, so that sampling reads the parameters it needs and nothing else.
"""

import json
import logging
import pathlib
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from bitseg_jax.runtime import checks
from bitseg_jax.runtime.train_state import TrainState

# Weights that can be sampled from, and their items.
KINDS = {'ema': 'ema_params', 'raw': 'params'}
ITEMS = ('params', 'ema_params', 'optimizer', 'input', 'config')


def open_manager(
  workdir: str | pathlib.Path, keep: int = 2
) -> ocp.CheckpointManager:
  """Opens <workdir>/checkpoints for saving; keeps the newest `keep` steps."""
  return ocp.CheckpointManager(
    _folder(workdir),
    item_names=ITEMS,
    options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
  )


def save(
  manager: ocp.CheckpointManager,
  step: int,
  state: TrainState,
  batches: grain.DatasetIterator,
  config: dict[str, Any],
) -> None:
  """Starts saving a step in the background; it shows once it is whole."""
  manager.save(
    step,
    args=ocp.args.Composite(
      params=ocp.args.StandardSave(state.params),
      ema_params=ocp.args.StandardSave(state.ema_params),
      optimizer=ocp.args.StandardSave(
        {'step': state.step, 'opt_state': state.opt_state}
      ),
      input=grain.checkpoint.CheckpointSave(batches),
      config=ocp.args.JsonSave(
        # Tuples become lists, as they would in any JSON.
        json.loads(
          json.dumps({'config': config, 'processes': jax.process_count()})
        )
      ),
    ),
  )


def restore_newest(
  manager: ocp.CheckpointManager,
  abstract: TrainState,
  batches: grain.DatasetIterator,
) -> TrainState | None:
  """Restores the newest step that is whole, and the input's position with it.

  A step that cannot be read is passed over with a warning and, once an older
  one was read, moved to <workdir>/damaged/: its number will be saved again.

  Args:
    manager: as from open_manager.
    abstract: shapes, dtypes and shardings of the state.
    batches: iterator whose position is set.

  Returns:
    The state, or None where no step was ever saved.

  Raises:
    ValueError: if another number of processes wrote the checkpoint.
    OSError: if there are steps, but none is whole.
  """
  damaged = []
  for step in sorted(manager.all_steps(), reverse=True):
    try:
      meta = _read(manager, step, config=ocp.args.JsonRestore())['config']
      if meta['processes'] != jax.process_count():
        break
      items = _read(
        manager,
        step,
        params=ocp.args.StandardRestore(abstract.params),
        ema_params=ocp.args.StandardRestore(abstract.ema_params),
        optimizer=ocp.args.StandardRestore(
          {'step': abstract.step, 'opt_state': abstract.opt_state}
        ),
        input=grain.checkpoint.CheckpointRestore(batches),
      )
    except Exception as error:  # what damage raises has no common type
      _warn(manager.directory, step, error)
      damaged.append(step)
      continue
    # Not before one was read: where none can be, the fault may lie elsewhere.
    _set_aside(manager, damaged)
    return TrainState(
      params=items['params'],
      ema_params=items['ema_params'],
      **items['optimizer'],
    )
  else:
    if damaged:
      raise OSError(
        f'none of the steps {damaged} in {manager.directory} can be read; to '
        'begin anew, use another workdir'
      )
    return None
  raise ValueError(
    f'{manager.directory}/{step} was written by {meta["processes"]} processes, '
    f'this run has {jax.process_count()}; resume with as many'
  )


def read_config(workdir: str | pathlib.Path) -> ConfigDict:
  """Reads the config of the newest step whose config is readable.

  Args:
    workdir: directory of a run, or one step of it, see read_params.

  Raises:
    FileNotFoundError: if the workdir holds no such step.
    ValueError: if what it holds is no config, see checks.complete.
  """
  saved = _newest(workdir, config=ocp.args.JsonRestore())[1]['config']
  return checks.complete(saved['config'])


def read_params(
  workdir: str | pathlib.Path, abstract: Any, kind: str = 'ema_params'
) -> tuple[int, Any]:
  """Reads the parameters of the newest whole step.

  Args:
    workdir: directory of the run, or its checkpoints/ folder; or
      <workdir>/checkpoints/<step>, which reads this step and no other.
    abstract: shapes, dtypes and shardings of the parameters.
    kind: 'ema_params' or 'params'.

  Returns:
    (step, parameters).

  Raises:
    FileNotFoundError: if the workdir holds no whole step.
  """
  step, items = _newest(workdir, **{kind: ocp.args.StandardRestore(abstract)})
  return step, items[kind]


def _newest(path, **items):
  """(step, items) of the newest step whose items can be read."""
  folder, wanted = _locate(path)
  if not folder.is_dir():
    raise FileNotFoundError(
      f'no checkpoint: {folder} does not exist; give the workdir of a run'
    )
  # Orbax warns of what read_only changes; said here, it has nothing to change.
  options = ocp.CheckpointManagerOptions(
    read_only=True, save_interval_steps=0, create=False
  )
  with ocp.CheckpointManager(
    folder, item_names=ITEMS, options=options
  ) as manager:
    for step in sorted(manager.all_steps(), reverse=True):
      if wanted not in (None, step):
        continue
      try:
        return step, _read(manager, step, **items)
      except Exception as error:  # what damage raises has no common type
        _warn(folder, step, error)
  where = folder if wanted is None else folder / str(wanted)
  raise FileNotFoundError(f'no whole checkpoint in {where}')


def _locate(path):
  """(checkpoints folder, step or None) of a workdir, or what is in it."""
  path = pathlib.Path(path).absolute()
  if path.parent.name == 'checkpoints' and path.name.isdigit():
    return path.parent, int(path.name)
  if path.name == 'checkpoints' and not _folder(path).is_dir():
    return path, None
  return _folder(path), None


def _read(manager, step, **items):
  return manager.restore(step, args=ocp.args.Composite(**items))


def _set_aside(manager, steps):
  """Moves damaged steps out of the way of the run that writes them anew."""
  folder = pathlib.Path(manager.directory)
  for step in steps:
    target = folder.parent / 'damaged' / str(step)
    logging.warning('moving damaged %s/%s to %s', folder, step, target)
    if jax.process_index() == 0:
      target.parent.mkdir(exist_ok=True)
      while target.exists():
        target = target.with_name(target.name + '_')
      (folder / str(step)).rename(target)
  if steps:
    multihost_utils.sync_global_devices('set_aside')
    manager.reload()


def _warn(folder, step, error):
  """One line on a step that is passed over."""
  reason = ' '.join(str(error).split()) or type(error).__name__
  logging.warning(
    'passing over %s/%s, which cannot be read: %s', folder, step, reason[:200]
  )


def _folder(workdir):
  # Orbax takes absolute paths only.
  return pathlib.Path(workdir).absolute() / 'checkpoints'
