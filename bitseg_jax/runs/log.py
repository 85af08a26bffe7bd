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
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import filelock
import jax
import numpy as np
from tqdm import tqdm

from bitseg_jax import interrupts

_unfinished: set[pathlib.Path] = set()  # files that are being written
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
  """Yields a file to write ('w' or 'wb') that gets its name once it is whole.

  One that is there is replaced, a link too, not its target.
  """
  path = pathlib.Path(path)
  # The same name each time, so what a killed process left is replaced by the
  # next; shortened, since a name has at most 255 bytes.
  digest = zlib.crc32(os.fsencode(path.name))
  temporary = path.with_name(f'.{path.name[:40]}.{digest:08x}.partly')
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


@contextlib.contextmanager
def hold(folder: str | os.PathLike) -> Iterator[None]:
  """Holds a folder, made if need be, until the block ends, or the process.

  Raises:
    OSError: one line; another process holds it, or it cannot be written to.
  """
  path = pathlib.Path(folder) / '.lock'
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with filelock.FileLock(path).acquire(timeout=0):
      with _naming(path):
        path.write_text(f'process {os.getpid()} on {socket.gethostname()}\n')
      yield
  except filelock.Timeout as error:
    holder = path.read_text().strip() or 'another process'
    raise OSError(
      f'{folder} is in use by {holder}; wait for it to end, or use another '
      'folder'
    ) from error


class MetricWriter:
  """Logs the metrics of a run to <logdir>/metrics.jsonl and TensorBoard."""

  def __init__(self, logdir: str | pathlib.Path, enabled: bool = True):
    """Opens the files in logdir; if not enabled, all methods do nothing."""
    self._enabled = enabled
    if enabled:
      from tensorboardX import SummaryWriter  # only a training needs it

      self._board = SummaryWriter(str(logdir))
      self._lines = open(f'{logdir}/metrics.jsonl', 'a')  # noqa: SIM115

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

  def flush(self) -> None:
    """Makes everything written so far readable by other programs."""
    if self._enabled:
      with _naming(self._lines.name):
        self._lines.flush()
        os.fsync(self._lines.fileno())  # mounted buckets need it
        self._board.flush()

  def close(self) -> None:
    """Flushes and closes the files."""
    self.flush()
    if self._enabled:
      self._lines.close()
      self._board.close()
