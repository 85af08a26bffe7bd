"""The one way in for files that others made: JSON, .mat, .npy, text.

Whatever is wrong with a file becomes a SourceError: one line that names it.
Nothing is read that is no plain file, so a pipe is never waited for.
"""

import contextlib
import json
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np

MAX_PIXELS = 178_956_970  # of one image; Pillow's own limit
MAX_ID = 2**31 - 2  # ids + 1 still fit in int32
_MAX_BYTES = 2**32


class SourceError(ValueError):
  """A fault in the given data: one line for the user, no traceback."""


def shown(value: Any) -> str:
  """Returns a value of unknown size as text that fits into a message."""
  try:
    text = ascii(value)
  except Exception:  # nested too deep, or a number of too many digits
    text = f'a {type(value).__name__}'
  return text if len(text) <= 60 else text[:57] + '...'


@contextlib.contextmanager
def named(where: Any, what: str, advice: str = '') -> Iterator[None]:
  """Turns whatever a library raises about a file into one line that names it.

  Pillow, scipy, numpy and others raise a different type for each damage.
  """
  try:
    yield
  except SourceError:
    raise
  except Exception as error:
    said = getattr(error, 'strerror', None) or str(error)
    said = ' '.join(said.split())[:300] or type(error).__name__
    if isinstance(error, KeyError):
      said = f'no {shown(error.args[0])} in it'
    advice = f'; {advice}' if advice else ''
    raise SourceError(f'{where}: {what} ({said}){advice}') from error


@contextlib.contextmanager
def left_out(problems: list[str], where: Any) -> Iterator[None]:
  """Notes what is wrong with one part of a source, for the others to go on."""
  try:
    with named(where, 'left out'):
      yield
  except SourceError as error:
    problems.append(str(error))


def check_plain(path: str | Path) -> None:
  """Raises SourceError unless a path leads to a plain file of common size."""
  with named(path, 'cannot be read'):
    status = os.stat(path)
  if not stat.S_ISREG(status.st_mode):
    raise SourceError(f'{path}: not a plain file')
  if status.st_size > _MAX_BYTES:
    raise SourceError(f'{path}: {status.st_size} bytes, over {_MAX_BYTES}')


def read_bytes(path: Path) -> bytes:
  """Reads a plain file whole; raises SourceError if it is none."""
  check_plain(path)
  with named(path, 'cannot be read'):
    return Path(path).read_bytes()


def find_below(root: Path, folders: Iterable[Path], name: Any) -> Path | None:
  r"""Finds a file by a name that somebody else wrote down, with / or \.

  The name is relative to one of the folders, which are tried in this order, or
  absolute. ValueError if it is no text, or leads out of the root.
  """
  if not isinstance(name, str) or not name or '\0' in name:
    raise ValueError(f'{shown(name)} is no file name')
  path, folders = PurePath(name.replace('\\', '/')), list(folders)
  for base in (root.absolute(), root.resolve()):
    if path.is_absolute() and path.is_relative_to(base):
      path, folders = path.relative_to(base), [root]
  if path.is_absolute() or '..' in path.parts:
    raise ValueError(f'{shown(name)} leads out of {root}')
  for form in ('NFC', 'NFD'):  # Macs store accents as letters of their own
    for folder in folders:
      found = folder / unicodedata.normalize(form, str(path))
      if os.path.isfile(found):
        return found
  return None


def check_size(height: Any, width: Any) -> tuple[int, int]:
  """Returns the size of an image; raises ValueError if no image has it."""
  size = height, width
  whole = all(type(side) is int and side > 0 for side in size)
  if not whole or height * width > MAX_PIXELS:
    raise ValueError(f'of height {shown(height)} and width {shown(width)}')
  return size


def check_ids(values: Any, where: Any, least: int = 0) -> np.ndarray:
  """Returns whole numbers [H, W] in `least` to MAX_ID as int32, or raises."""
  values = np.asarray(values)
  if values.dtype.kind not in 'iuf' or values.ndim != 2 or not values.size:
    what = f'{values.dtype} {list(values.shape)}'
    raise SourceError(f'{where}: {what} where ids [H, W] should be')
  low, high = values.min(), values.max()
  if not least <= low <= high <= MAX_ID:  # nor for nan
    raise SourceError(
      f'{where}: ids from {low} to {high}; they must lie in {least} to {MAX_ID}'
    )
  ids = values.astype(np.int32)
  if (ids != values).any():
    raise SourceError(f'{where}: ids that are not whole numbers')
  return ids


def read_json(path: Path) -> Any:
  """Reads a JSON file, of UTF-8 or UTF-16, in which numbers are finite."""
  content = read_bytes(path)
  with named(path, 'not whole JSON', 'replace the file'):
    # Called with NaN, Infinity and -Infinity, of which int knows none.
    return json.loads(content, parse_constant=int)


def read_lists(path: Path, *keys: str) -> dict[str, list[dict]]:
  """Reads a JSON file that must hold a list of objects under some keys."""
  content = read_json(path)
  for key in keys:
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
      raise SourceError(f'{path}: no list {key!r} in it; download it again')
    for i, entry in enumerate(content[key]):
      if not isinstance(entry, dict):
        raise SourceError(f'{path}: {key}[{i}] is {shown(entry)}, no object')
  return {key: content[key] for key in keys}


def read_array(path: Path) -> np.ndarray:
  """Reads a .npy file of one array of numbers."""
  check_plain(path)
  with named(path, 'not a whole .npy file'):
    # Mapped, so that what it claims to hold takes no memory.
    array = np.load(path, mmap_mode='r', allow_pickle=False)
    if not isinstance(array, np.ndarray):
      raise ValueError('it holds several arrays')
    return np.array(array)


def read_lines(path: Path) -> list[str]:
  """Reads the lines of a text file that hold anything, without the spaces."""
  content, lines = read_bytes(path).removeprefix(b'\xef\xbb\xbf'), []
  if content[:2] in (b'\xff\xfe', b'\xfe\xff'):
    content = content.decode('utf-16', 'replace').encode()
  for line in filter(None, map(bytes.strip, content.splitlines())):
    try:
      lines.append(line.decode())
    except UnicodeDecodeError:  # the bytes of a file's name, or of Windows
      name = os.fsdecode(line)
      is_there = os.path.lexists(path.parent / name)
      lines.append(name if is_there else line.decode('cp1252', 'replace'))
  return lines
