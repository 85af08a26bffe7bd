"""Finds photos on disk and names their results."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bitseg_jax.data import outside
from bitseg_jax.data.images import PHOTO_SUFFIXES

# Files and folders of the whole collection, see app/files.py.
_RESERVED = {'summary', 'rle', 'coco', 'panoptic', 'labelme'}
_LONGEST_NAME = 200  # bytes; file systems allow 255, endings included


class Photo(NamedTuple):
  """A file that may be a photo, and what the names of its results begin with.

  The name is relative to the output directory and unique in it.
  """

  path: Path
  name: str


def find(inputs: Sequence[str], output: str | Path) -> list[Photo]:
  """Finds the photos that paths and patterns name, each once.

  The photos of an input are sorted. Results keep their folders: those below a
  given folder, or below the part of a pattern before its first wildcard. Files
  in the output directory are left out.

  Args:
    inputs: photos, folders of photos (searched recursively), glob patterns (**
      matches any depth), or text files with one of these per line, below the
      file's folder. Names may have been written on Windows.
    output: directory for the results.

  Raises:
    ValueError: if an input names nothing, or only files in output.
  """
  output, found = Path(output).resolve(), {}
  for one in inputs:
    if not one:
      raise ValueError('--input is empty; give a photo, a folder or a pattern')
    candidates = list(_candidates(one))
    if not candidates:
      raise ValueError(
        f'{one}: no photo there; give --input a photo, a folder with photos '
        f'({" ".join(PHOTO_SUFFIXES)}), a list of them (.txt), or a quoted '
        'pattern'
      )
    # A link with another name counts as another photo.
    places = [Path(os.path.realpath(p.parent), p.name) for p, _ in candidates]
    if all(output in place.parents for place in places):
      raise ValueError(
        f'{one} lies in the output directory {output}; write elsewhere'
      )
    for place, candidate in zip(places, candidates, strict=True):
      if output not in place.parents:
        found.setdefault(place, candidate)
  return _name(found.values())


def _candidates(one: str | Path) -> Iterator[tuple[Path, Path]]:
  """Yields (file, its path below the given folder) for one input."""
  if not os.path.lexists(one) and '\\' in str(one):
    one = str(one).replace('\\', '/')
  root = Path(one)
  if root.is_dir():
    visited = set()  # links to folders may form a cycle
    for folder, folders, names in os.walk(root, followlinks=True):
      real = os.path.realpath(folder)
      is_new = real not in visited
      visited.add(real)
      folders[:] = sorted(f for f in folders if is_new and f[0] != '.')
      for name in sorted(names if is_new else ()):
        path = Path(folder, name)
        if path.suffix.lower() in PHOTO_SUFFIXES and name[0] != '.':
          yield path, path.relative_to(root)
  elif root.suffix.lower() in ('.txt', '.lst') and root.is_file():
    for line in outside.read_lines(root):
      listed = root.parent / line.replace('\\', '/')
      if listed.resolve() == root.resolve():  # as `ls > list.txt` writes
        continue
      found = list(_candidates(listed))
      if not found:
        raise ValueError(f'{root}: {line}: no photo there')
      for path, below in found:
        yield path, _inside(root.parent, path) or below
  elif os.path.lexists(root):  # names may contain [ or *
    yield root, Path(root.name)
  else:
    magic = [glob.has_magic(part) for part in (*root.parts[:-1], '*')]
    plain = Path(*root.parts[: magic.index(True)])
    for name in sorted(glob.glob(str(one), recursive=True)):
      if not os.path.isdir(name):
        path = Path(name)
        yield path, _inside(plain, path) or Path(path.name)


def _inside(folder, path):
  """Where below a folder a path lies; None if elsewhere."""
  below = Path(os.path.relpath(path, folder))
  return None if below.parts[0] == '..' else below


def _name(found):
  """Gives photos unique names; those that clash keep their suffix."""
  stem_of = lambda below: below.with_suffix('').as_posix()
  shared = Counter(stem_of(below).casefold() for _, below in found)
  taken, photos = set(), []
  for path, below in found:
    name = stem_of(below)
    if shared[name.casefold()] > 1:
      name = below.as_posix()
    folders, slash, own = name.rpartition('/')
    # Short enough for _uncertainty.png to be appended.
    own = os.fsencode(own)[:_LONGEST_NAME].decode(errors='surrogateescape')
    name = base = folders + slash + own
    number, reserved = 1, base.split('/')[0].casefold() in _RESERVED
    while name.casefold() in taken or (reserved and number == 1):
      number += 1
      name = f'{base}~{number}'
    taken.add(name.casefold())
    photos.append(Photo(path, name))
  return photos
