"""What a run writes and shows: whole files, locks, metrics, progress bars.

MetricWriter has the methods of CLU's, whose import would need TensorFlow.
"""

import contextlib
import json
import math
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO, Any

import filelock
import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from bitseg_jax import interrupts

LOCK = '.lock'
_TEMPORARY = '.partly'  # ends the names of files that are being written
_unfinished: set[pathlib.Path] = set()  # of this process


def _shortened(name):
  """The first 80 bytes of a name: with all else a name has 255 at most."""
  return os.fsencode(name)[:80].decode(errors='ignore')


_HOST = _shortened(socket.gethostname().replace('.', '_'))


interrupts.at_end.append(
  lambda: [path.unlink(missing_ok=True) for path in list(_unfinished)]
)


def progress_bar(
  total: int, description: str, unit: str, initial: int = 0
) -> tqdm:
  """Returns a run's progress bar with time left, shown by process 0 only."""
  return tqdm(
    total=total,
    desc=description,
    unit=unit,
    initial=initial,
    disable=jax.process_index() > 0 or sys.stderr is None,
    smoothing=0,  # time left by the mean speed: steady
    # Seconds between updates, rarer in a log file than in a terminal.
    mininterval=0.5 if sys.stderr and sys.stderr.isatty() else 20,
  )


@contextlib.contextmanager
def _naming(path):
  """Lets errors of the file system name a file; those of writing do not."""
  try:
    yield
  except OSError as error:
    if error.filename is None and error.errno is not None:
      error.filename = str(path)
    raise


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, mode: str = 'w') -> Iterator[IO]:
  """Yields a file to write that gets its name once it is whole.

  Args:
    path: the file; one that is there is replaced, a link too, not its target.
    mode: 'w' or 'wb'.
  """
  path = pathlib.Path(path)
  owner = f'{_HOST}.{os.getpid()}.{threading.get_ident()}'
  temporary = path.with_name(f'.{_shortened(path.name)}.{owner}{_TEMPORARY}')
  temporary.unlink(missing_ok=True)
  _unfinished.add(temporary)
  try:
    # 'x' follows no link that somebody may have laid there.
    with _naming(path), open(temporary, mode.replace('w', 'x')) as file:
      yield file
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
    _unfinished.discard(temporary)


def check_no_links(
  output: str | os.PathLike, names: Iterable[str | os.PathLike]
) -> None:
  """Raises OSError if a file to be written would lie behind a link.

  Args:
    output: folder of the results; it may be a link itself.
    names: files in it, relative to it.
  """
  folders = {folder for name in names for folder in pathlib.Path(name).parents}
  for folder in sorted(folders - {pathlib.Path()}):
    path = pathlib.Path(output) / folder
    if path.is_symlink():
      raise OSError(f'{path} is a link; remove it, or use another output')


def remove_leftovers(folder: str | os.PathLike) -> None:
  """Removes what killed processes of this machine left below a folder."""
  for path in pathlib.Path(folder).rglob(f'.*{_TEMPORARY}'):
    *_, host, process, _ = f'..{path.name.removesuffix(_TEMPORARY)}'.split('.')
    ours = host == _HOST and process.isdigit()
    if ours and not _is_running(int(process)):
      path.unlink(missing_ok=True)


def _is_running(process):
  try:
    os.kill(process, 0)
  except OSError as error:
    return not isinstance(error, ProcessLookupError)
  return True


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes a JSON file, whole or not at all; nan and inf become null."""
  with whole_file(path) as file:
    file.write(json.dumps(without_nan(content), indent=2) + '\n')


def without_nan(content: Any) -> Any:
  """Returns what JSON is to hold with None for nan and inf, which it lacks."""
  if isinstance(content, dict):
    return {name: without_nan(value) for name, value in content.items()}
  if isinstance(content, list | tuple):
    return list(map(without_nan, content))
  is_nan = isinstance(content, float) and not math.isfinite(content)
  return None if is_nan else content


class LockedError(OSError):
  """Another program holds the folder."""


@contextlib.contextmanager
def hold(
  folder: str | os.PathLike, part: tuple[int, int] | None = None
) -> Iterator[None]:
  """Holds a folder, made if need be, until the block ends, or the process.

  Args:
    folder: what to hold.
    part: (index, count) holds that part of the work, beside the other parts;
      None holds the folder alone, so not while any part is held.

  Raises:
    LockedError: another process holds it; one line that names it.
    OSError: the folder cannot be made or written to.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  name = f'{LOCK}-{part[0]}-of-{part[1]}' if part else LOCK
  with _held(folder / name):
    # Whoever comes second finds the first, since each takes its own before.
    others = [folder / LOCK] if part else [*folder.glob(f'{LOCK}-*-of-*')]
    for other in others:
      with _held(other, patience=2):  # as long as other parts look at it
        if not part:
          other.unlink(missing_ok=True)
    yield


@contextlib.contextmanager
def _held(path, patience=0):
  lock = filelock.FileLock(path)
  try:
    lock.acquire(timeout=patience)
  except filelock.Timeout as error:
    holder = path.read_text().strip() or 'another process'
    raise LockedError(
      f'{path.parent} is in use by {holder}; wait for it to end, or use '
      'another folder'
    ) from error
  try:
    with _naming(path):
      path.write_text(f'process {os.getpid()} on {socket.gethostname()}\n')
    yield
  finally:
    lock.release()


def hold_for_all(folder: str | os.PathLike) -> AbstractContextManager[None]:
  """Holds a folder, by process 0, for a run of several; see `hold`."""
  return contextlib.nullcontext() if jax.process_index() else hold(folder)


class MetricWriter:
  """Logs the metrics of a run to <logdir>/metrics.jsonl and TensorBoard."""

  def __init__(self, logdir: str | pathlib.Path, enabled: bool = True):
    """Opens the files in logdir; if not enabled, all methods do nothing."""
    self._enabled = enabled
    if enabled:
      path = pathlib.Path(logdir) / 'metrics.jsonl'
      path.parent.mkdir(parents=True, exist_ok=True)
      if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(f'{path} is no plain file; remove it')
      self._lines = open(path, 'a')  # noqa: SIM115
      self._board = SummaryWriter(str(logdir))

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Logs scalars of a run by name; nan and inf become null in the JSON."""
    if self._enabled:
      values = {name: float(value) for name, value in scalars.items()}
      line = {'step': step, 'time': round(time.time(), 3), **values}
      self._lines.write(json.dumps(without_nan(line)) + '\n')
      for name, value in values.items():
        self._board.add_scalar(name, value, step)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Logs images of a run by name, uint8 [H, W, 3], to TensorBoard."""
    for name, image in images.items() if self._enabled else ():
      self._board.add_image(name, image, step, dataformats='HWC')

  def write_hparams(self, hparams: Mapping[str, Any]) -> None:
    """Logs the settings of a run to TensorBoard, as text."""
    if self._enabled:
      text = json.dumps(hparams, indent=2, default=str)
      self._board.add_text('config', f'```\n{text}\n```')

  def flush(self) -> None:
    """Makes everything written so far readable by other programs."""
    if self._enabled:
      with _naming(self._lines.name):
        self._lines.flush()
        os.fsync(self._lines.fileno())  # mounted buckets need it
      with _naming(self._board.logdir):
        self._board.flush()

  def close(self) -> None:
    """Flushes and closes the files."""
    self.flush()
    if self._enabled:
      self._lines.close()
      self._board.close()
