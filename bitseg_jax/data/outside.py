"""The one way in for files that others made: JSON, .mat, .npy, text, images.

Whatever is wrong with a file becomes a SourceError: one line that names it.
Nothing is read that is no plain file, so a pipe is never waited for, and what
a file claims to hold is compared with its size before memory is taken. Images
are decoded in images.py.
"""

import contextlib
import io
import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import scipy.io

MAX_PIXELS = 178_956_970  # of one image; Pillow's own limit
MAX_ID = 2**31 - 2  # ids + 1 still fit in int32
_MAX_BYTES = 2**32
_MAX_MAT_BYTES = 2**28  # after decompression


class SourceError(ValueError):
  """A fault in the given data: one line for the user, no traceback."""


def shown(value: Any) -> str:
  """Returns a value of unknown size as text that fits into a message."""
  try:
    text = ascii(value)
  except Exception:  # nested too deep, or a number of too many digits
    text = f'a {type(value).__name__}'
  return text if len(text) <= 60 else text[:57] + '...'


def as_key(value: Any) -> Any:
  """Returns an id or a name as it is, and anything else as text."""
  return value if isinstance(value, int | str) else shown(value)


def reason(error: BaseException) -> str:
  """Returns what an error says, in one line."""
  return ' '.join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def named(where: Any, what: str, advice: str = '') -> Iterator[None]:
  """Turns whatever a library raises about a file into one line that names it.

  Pillow, scipy, numpy and others raise a different type for each format and
  kind of damage: OSError, SyntaxError, struct.error, zlib.error, ...
  """
  try:
    yield
  except SourceError:
    raise
  except Exception as error:
    advice = f'; {advice}' if advice else ''
    raise SourceError(f'{where}: {what} ({reason(error)}){advice}') from error


def read_bytes(path: Path) -> bytes:
  """Reads a plain file whole.

  Args:
    path: the file.

  Returns:
    Its content.

  Raises:
    SourceError: it is not there, no plain file, too large, or unreadable.
  """
  try:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
      kind = 'a folder' if stat.S_ISDIR(status.st_mode) else 'not a plain file'
      raise SourceError(f'{path}: {kind}')
    if status.st_size > _MAX_BYTES:
      raise SourceError(f'{path}: {status.st_size} bytes, over {_MAX_BYTES}')
    return Path(path).read_bytes()
  except (OSError, MemoryError) as error:
    what = getattr(error, 'strerror', None) or reason(error)
    if path.is_symlink() and not path.exists():
      what = 'a link that leads nowhere'
    raise SourceError(f'{path}: cannot be read ({what})') from error


def find_below(
  root: Path, folders: Iterable[Path], name: Any, what: str
) -> Path | None:
  """Finds a file by a name that somebody else wrote down.

  Args:
    root: folder of the source; no file outside of it is taken, through links
      neither.
    folders: folders that may hold the file, in this order.
    name: its name relative to one of them.
    what: where the name stands, for the message.

  Returns:
    The file, None where there is none.

  Raises:
    SourceError: the name is no text, or leads out of the source.
  """
  if not isinstance(name, str) or not name or '\0' in name:
    raise SourceError(f'{what}: {shown(name)} is no file name')
  if PurePath(name).is_absolute() or '..' in PurePath(name).parts:
    raise SourceError(f'{what}: {shown(name)} leads out of {root}')
  for folder in folders:
    path = folder / name
    if os.path.isfile(path):
      if not path.resolve().is_relative_to(root.resolve()):
        raise SourceError(f'{what}: {shown(name)} is a link out of {root}')
      return path
  return None


def check_ids(values: Any, where: str, least: int = 0) -> np.ndarray:
  """Checks that an array of numbers holds ids.

  Args:
    values: numbers [H, W], whole but of any type.
    where: they are from, for the message.
    least: the smallest id.

  Returns:
    The ids, int32 [H, W].

  Raises:
    SourceError: they are of another shape, not whole, or out of range.
  """
  values = np.asarray(values)
  if values.dtype.kind not in 'iuf' or values.ndim != 2 or not values.size:
    raise SourceError(
      f'{where}: {values.dtype} {list(values.shape)} where whole numbers '
      '[H, W] should be'
    )
  low, high = values.min(), values.max()
  if not (least <= low and high <= MAX_ID):  # neither holds for nan
    raise SourceError(
      f'{where}: ids from {low} to {high}; they must lie in {least} to {MAX_ID}'
    )
  ids = values.astype(np.int32)
  if values.dtype.kind == 'f' and (ids != values).any():
    raise SourceError(f'{where}: ids that are not whole numbers')
  return ids


def read_json(path: Path) -> Any:
  """Reads a JSON file.

  Raises:
    SourceError: it is not whole JSON, or has numbers that are not finite.
  """

  def refuse(word):
    raise ValueError(f'{word} is no number of JSON')

  try:
    return json.loads(read_bytes(path), parse_constant=refuse)
  except SourceError:
    raise
  except (ValueError, RecursionError, MemoryError) as error:
    raise SourceError(
      f'{path}: not whole JSON ({reason(error)}); replace the file'
    ) from error


def read_lists(path: Path, keys: Sequence[str]) -> dict[str, list[dict]]:
  """Reads a JSON file that must hold a list of objects under some keys.

  Args:
    path: the file.
    keys: the keys.

  Returns:
    The lists by key.

  Raises:
    SourceError: if the file is not JSON or lacks such a list.
  """
  content = read_json(path)
  for key in keys:
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
      raise SourceError(f'{path}: no list {key!r} in it; download it again')
    for i, entry in enumerate(content[key]):
      if not isinstance(entry, dict):
        raise SourceError(f'{path}: {key}[{i}] is {shown(entry)}, no object')
  return {key: content[key] for key in keys}


def read_mat(path: Path, name: str) -> np.ndarray:
  """Reads one variable of a MATLAB file.

  Args:
    path: the file.
    name: of the variable.

  Returns:
    The variable as scipy returns it.

  Raises:
    SourceError: it is damaged, expands to too much, or lacks the variable.
  """
  content = read_bytes(path)
  # scipy raises anything from ValueError to zlib.error on a damaged file.
  try:
    _check_expanded(content)
    shapes = {n: shape for n, shape, _ in scipy.io.whosmat(io.BytesIO(content))}
    if name not in shapes:
      raise ValueError(f'no {name!r} in it')
    if np.prod(shapes[name], dtype=float) > len(content):
      raise ValueError(f'{name!r} of size {list(shapes[name])}')
    return scipy.io.loadmat(io.BytesIO(content), variable_names=[name])[name]
  except Exception as error:
    raise SourceError(
      f'{path}: not a whole .mat file ({reason(error)}); download it again'
    ) from error


def _check_expanded(content: bytes) -> None:
  """Raises ValueError if the elements of a .mat file expand to too much."""
  order = 'big' if content[126:128] == b'MI' else 'little'
  start, total = 128, 0
  while start + 8 <= len(content):
    kind, size = (
      int.from_bytes(content[start + i : start + i + 4], order) for i in (0, 4)
    )
    packed, start = content[start + 8 : start + 8 + size], start + 8 + size
    while kind == 15 and packed:  # miCOMPRESSED
      unpacker = zlib.decompressobj()
      total += len(unpacker.decompress(packed, _MAX_MAT_BYTES))
      if unpacker.unconsumed_tail or total > _MAX_MAT_BYTES:
        raise ValueError(f'over {_MAX_MAT_BYTES} bytes when unpacked')
      break


def read_array(path: Path) -> np.ndarray:
  """Reads a .npy file.

  Raises:
    SourceError: it is damaged, holds objects, or is not as long as it says.
  """
  content = read_bytes(path)
  file = io.BytesIO(content)
  try:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
      raise ValueError(f'of version {version}')
    read = getattr(np.lib.format, f'read_array_header_{version[0]}_0')
    shape, fortran, dtype = read(file)
    size = dtype.itemsize
    for side in shape:
      size *= side
    there = len(content) - file.tell()
    if dtype.hasobject or min(shape, default=1) < 0 or size != there:
      raise ValueError(f'{there} bytes for {dtype} {shown(list(shape))}')
    array = np.frombuffer(content, dtype, offset=file.tell())
    return array.reshape(shape, order='F' if fortran else 'C')
  except Exception as error:  # SyntaxError and others of the header, too
    raise SourceError(
      f'{path}: not a whole .npy file ({reason(error)})'
    ) from error


def read_lines(path: Path) -> list[str]:
  """Reads the lines of a text file that hold anything, without the spaces.

  Raises:
    SourceError: it is not UTF-8, with or without a byte order mark.
  """
  try:
    text = read_bytes(path).decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise SourceError(
      f'{path}: not UTF-8 ({reason(error)}); save it as UTF-8'
    ) from error
  return [line.strip() for line in text.splitlines() if line.strip()]
