"""Checkpoints (orbax): asynchronous, atomic, each one whole or passed over.

<workdir>/checkpoints/<step>/ holds params, ema_params, optimizer ({'step',
'opt_state'}) and config (JSON). Written last, digest.json has the SHA-256 of
each file, since orbax notices no flipped bit in array data; a step that does
not fit it is passed over.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from bitseg_jax.runs import log, schema
from bitseg_jax.runs.train_state import TrainState

# The weights that one can sample with, and the items that hold them.
KINDS = {'ema': 'ema_params', 'raw': 'params'}
ITEMS = ('params', 'ema_params', 'optimizer', 'config')
DIGEST = 'digest.json'
# Orbax warns of what is asked for.
logging.getLogger('absl').addFilter(lambda r: 'read only' not in r.getMessage())


class DamagedError(ValueError):
  """Files are not, or no longer, as they were written."""


class Manager:
  """Saves the steps of one run by `orbax` in `folder`; see open_manager."""

  def __init__(self, orbax: ocp.CheckpointManager, folder: pathlib.Path):
    self.orbax, self.folder = orbax, folder
    self._unsealed = None  # folder of the step that is being saved

  def save(self, step: int, state: TrainState, config: dict[str, Any]) -> None:
    """Starts saving a step in the background; raises as `check` does."""
    self.finish()  # orbax deletes an old step for a new one: one must be whole
    with _one_line(f'step {step} cannot be saved to {self.folder}'):
      items = _args(ocp.args.StandardSave, state)
      # JSON has no tuples.
      items['config'] = ocp.args.JsonSave(json.loads(json.dumps(config)))
      self.orbax.save(step, args=ocp.args.Composite(**items))
    if not jax.process_index():
      self._unsealed = self.folder / str(step)

  def check(self) -> None:
    """Writes the digest of the last step once orbax has saved it.

    Raises:
      OSError: that step, or its digest, cannot be saved.
    """
    with _one_line(f'a step cannot be saved to {self.folder}'):
      self.orbax.check_for_errors()
      if self._unsealed and self._unsealed.is_dir():
        folder, self._unsealed = self._unsealed, None
        write_digest(folder)

  def finish(self) -> None:
    """Waits until everything is saved; raises as `check` does."""
    with _one_line(f'a step cannot be saved to {self.folder}'):
      self.orbax.wait_until_finished()
    self.check()


@contextlib.contextmanager
def open_manager(
  workdir: str | pathlib.Path, keep: int = 2
) -> Iterator[Manager]:
  """Opens <workdir>/checkpoints for saving; keeps the newest `keep` steps."""
  folder = _folder(workdir)
  with _open_orbax(folder, max_to_keep=keep, create=True) as orbax:
    manager = Manager(orbax, folder)
    try:
      yield manager
    finally:
      manager.finish()


def _args(kind, state):
  """The items of a state, as orbax takes them to save or to restore."""
  optimizer = {'step': state.step, 'opt_state': state.opt_state}
  items = state.params, state.ema_params, optimizer
  return dict(zip(ITEMS, map(kind, items), strict=False))


def _open_orbax(folder, **options):
  options = ocp.CheckpointManagerOptions(**options)
  return ocp.CheckpointManager(folder, item_names=ITEMS, options=options)


def restore_newest(manager: Manager, abstract: TrainState) -> TrainState | None:
  """Restores the newest step that is whole, or None where there is no step.

  Damaged steps are passed over and, once an older one was read, moved to
  <workdir>/damaged/. `abstract` has shapes, dtypes and shardings of the state.

  Raises:
    OSError: there are steps, but none is whole, or one cannot be read.
  """
  folder = manager.folder
  if not _steps(folder):
    return None
  step, newer = _newest_whole(folder, _steps(folder), ITEMS)
  restore = _args(ocp.args.StandardRestore, abstract)
  items = _read(manager.orbax, step, restore)
  # Not before one was read: where none can be, the fault may lie elsewhere.
  for damaged in newer:
    target = folder.parent / 'damaged' / str(damaged)
    logging.warning('moving damaged %s/%d to %s', folder, damaged, target)
    if jax.process_index() == 0:
      target.parent.mkdir(exist_ok=True)
      while target.exists():
        target = target.with_name(target.name + '_')
      (folder / str(damaged)).rename(target)
  if newer:
    multihost_utils.sync_global_devices('set_aside')
    manager.orbax.reload()
  params, ema_params = items['params'], items['ema_params']
  return TrainState(params=params, ema_params=ema_params, **items['optimizer'])


def read_config(workdir: str | pathlib.Path) -> ConfigDict:
  """Reads the config of the newest whole step; see schema.complete."""
  _, items = _read_newest(workdir, {'config': ocp.args.JsonRestore()})
  return schema.complete(items['config'])


def read_params(
  workdir: str | pathlib.Path, abstract: Any, *kinds: str
) -> tuple[Any, ...]:
  """Reads (step, parameters of each kind) of the newest whole step.

  Args:
    workdir: directory of the run, or <workdir>/checkpoints/<step>.
    abstract: shapes, dtypes and shardings of the parameters.
    *kinds: 'ema_params' or 'params', or both.

  Raises:
    OSError: there is no whole step, or it cannot be read.
  """
  restore = {kind: ocp.args.StandardRestore(abstract) for kind in kinds}
  step, items = _read_newest(workdir, restore)
  return step, *(items[kind] for kind in kinds)


def read_digest(workdir: str | pathlib.Path, step: int) -> str:
  """Returns a hash of a step that `read_params` read from this workdir."""
  path = _folder(run_and_step(workdir)[0]) / str(step) / DIGEST
  return json.loads(path.read_bytes())['sha256']


def run_and_step(path: str | pathlib.Path) -> tuple[pathlib.Path, int | None]:
  """Returns (workdir, step or None) for what `read_params` takes as workdir."""
  whole = pathlib.Path(path).absolute()
  if whole.parent.name == 'checkpoints' and whole.name.isdigit():
    return whole.parent.parent, int(whole.name)
  return pathlib.Path(path), None


def _read_newest(path, items):
  """(step, items) of the newest step whose items are whole."""
  workdir, only = run_and_step(path)
  folder = _folder(workdir)
  steps = [step for step in _steps(folder) if only in (None, step)]
  if not steps:
    raise FileNotFoundError(
      f'no checkpoint in {path}; give the workdir of a run that has saved'
    )
  step, _ = _newest_whole(folder, steps, list(items))
  # These are the values that read_only implies; orbax warns of others.
  options = {'read_only': True, 'save_interval_steps': 0, 'create': False}
  with _open_orbax(folder, **options) as orbax:
    return step, _read(orbax, step, items)


def _newest_whole(folder, steps, items):
  """(newest of some steps that fits its digest, those that are newer)."""
  found, wrong = -1, ''
  for step in sorted(steps, reverse=True):
    try:
      if jax.process_index() == 0:
        check_digest(folder / str(step), items)
      found = step
      break
    except DamagedError as error:
      wrong = wrong or str(error)
      logging.warning('passing over step %d: %s', step, error)
  # Process 0 decides for all.
  found = int(multihost_utils.broadcast_one_to_all(np.array(found, np.int32)))
  if found < 0:
    raise FileNotFoundError(
      f'no whole checkpoint in {folder}: {wrong}; to begin anew, use another '
      'workdir'
    )
  return found, [step for step in steps if step > found]


def _steps(folder):
  return [int(p.name) for p in folder.glob('*') if p.name.isdigit()]


def _read(orbax, step, items):
  with _one_line(f'{orbax.directory}/{step} cannot be read'):
    return orbax.restore(step, args=ocp.args.Composite(**items))


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
  """Turns whatever orbax raises, which has no common type, into one line."""
  try:
    yield
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise OSError(f'{what}: {reason[:300]}') from error


def _folder(workdir):
  # Orbax accepts only absolute paths.
  return pathlib.Path(workdir).absolute() / 'checkpoints'


def write_digest(folder: pathlib.Path) -> None:
  """Writes the digest of a checkpoint's files into it, whole or not at all."""
  files = _hashes(folder)
  with log.whole_file(folder / DIGEST) as file:
    json.dump({'files': files, 'sha256': _hash_of(files)}, file, indent=1)
    file.flush()
    os.fsync(file.fileno())


def check_digest(folder: pathlib.Path, items: Sequence[str] = ITEMS) -> None:
  """Compares the files of the subfolders `items`, and others, with the digest.

  Raises DamagedError, which names a file that is missing, new or changed.
  """
  path = folder / DIGEST
  if not path.is_file():
    raise DamagedError(f'{path} is missing: the checkpoint was never finished')
  try:
    content = json.loads(path.read_bytes())
    expected, whole = content['files'], _hash_of(content['files'])
  except (ValueError, TypeError, KeyError):
    content = expected = whole = {}
  if not expected or content['sha256'] != whole:
    raise DamagedError(f'{path} was changed after it was written')
  unread = tuple(f'{item}/' for item in set(ITEMS) - set(items))
  expected = {k: v for k, v in expected.items() if not k.startswith(unread)}
  found = _hashes(folder, unread)
  for name in sorted(expected.keys() | found.keys()):
    if name not in found:
      raise DamagedError(f'{folder / name} is missing')
    if found[name] != expected.get(name):
      raise DamagedError(f'{folder / name} was changed after it was written')


def _hashes(folder, unread=()):
  """SHA-256 of each file below a folder, by name, but for those unread."""

  def hash_one(name):
    with open(folder / name, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()

  paths = (path for path in folder.rglob('*') if path.is_file())
  names = {path.relative_to(folder).as_posix() for path in paths} - {DIGEST}
  names = sorted(name for name in names if not name.startswith(unread))
  with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter's lock
    return dict(zip(names, pool.map(hash_one, names), strict=True))


def _hash_of(files):
  text = json.dumps(files, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
