"""Digests of files: whether a saved folder still holds what was written.

Orbax notices a flipped bit in its manifests, but not in array data. So every
checkpoint gets a `digest.json` with the SHA-256 of each of its files, written
last: a folder without one was never finished.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

NAME = 'digest.json'


class DamagedError(ValueError):
  """Files are not, or no longer, as they were written."""


def write(folder: pathlib.Path) -> None:
  """Writes the digest of all files below a folder into it.

  Args:
    folder: a finished checkpoint; it appears whole or not at all.

  Raises:
    OSError: a file cannot be read, or the digest not be written.
  """
  temporary = folder / f'.{NAME}.{os.getpid()}'
  temporary.unlink(missing_ok=True)  # of a call that failed
  names = sorted(_files_below(folder))
  files = dict(zip(names, _hash_all(folder, names), strict=True))
  content = {'files': files, 'sha256': _hash_of(files)}
  with open(temporary, 'w') as file:
    json.dump(content, file, indent=1)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, folder / NAME)


def read(folder: pathlib.Path) -> str:
  """Returns one hash of all files in a folder that `check` found whole."""
  return json.loads((folder / NAME).read_bytes())['sha256']


def check(folder: pathlib.Path, items: Sequence[str] = ()) -> None:
  """Compares the files below a folder with its digest.

  Args:
    folder: a checkpoint.
    items: subfolders that will be read; () is all of them. Files beside the
      subfolders are always compared.

  Raises:
    DamagedError: a file is missing, new or changed, or there is no digest; one
      line that names it.
    OSError: a file is there but cannot be read.
  """
  path = folder / NAME
  if not path.is_file():
    raise DamagedError(f'{path} is missing: the checkpoint was never finished')
  try:
    content = json.loads(path.read_bytes())
    expected = dict(content['files'])
    whole = content['sha256'] == _hash_of(expected)
  except (ValueError, TypeError, KeyError):
    whole = False
  if not whole:
    raise DamagedError(f'{path} was changed after it was written')
  wanted = lambda name: (
    '/' not in name or not items or name.split('/')[0] in items
  )
  names = [name for name in sorted(expected) if wanted(name)]
  there = set(filter(wanted, _files_below(folder)))
  for name in names:
    if name not in there:
      raise DamagedError(f'{folder / name} is missing')
  for name in there - set(names):
    raise DamagedError(f'{folder / name} was not there when it was saved')
  for name, found in zip(names, _hash_all(folder, names), strict=True):
    if found != expected[name]:
      raise DamagedError(f'{folder / name} was changed after it was written')


def _files_below(folder):
  for path in folder.rglob('*'):
    if path.is_file() and path != folder / NAME:
      yield path.relative_to(folder).as_posix()


def _hash_all(folder, names):
  """SHA-256 of the files, in order; hashing leaves the interpreter's lock."""

  def hash_one(name):
    with open(folder / name, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()

  with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    return list(pool.map(hash_one, names))


def _hash_of(files):
  text = json.dumps(files, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
