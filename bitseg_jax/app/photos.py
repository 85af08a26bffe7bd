"""Finds photos on disk, names their results, and reads them."""

import glob
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from bitseg_jax.data import images, outside
from bitseg_jax.data.families.folder import PHOTO_SUFFIXES

# Files of types that Pillow may not read are listed too, to report an error.
SUFFIXES = (*PHOTO_SUFFIXES, '.avif', '.gif', '.heic', '.heif', '.jp2', '.ppm')
# Files and folders of the whole collection, see app/files.py.
_RESERVED = {'summary', 'rle', 'panoptic'}
_LONGEST_NAME = 200  # bytes; file systems allow 255, endings included


class Photo(NamedTuple):
  """A file that may be a photo to segment.

  Attributes:
    path: the file.
    name: start of the names of its results; relative to the output directory,
      unique in it, with / between folders.
  """

  path: Path
  name: str


def find(inputs: Sequence[str], output: str | Path) -> list[Photo]:
  """Finds the photos that paths and patterns name, each once.

  The photos of an input are sorted. Results keep their folders: those below a
  given folder, or below the part of a pattern before its first wildcard. Files
  in the output directory are left out.

  Args:
    inputs: photos, folders of photos (searched recursively), or glob patterns
      (** matches any depth).
    output: directory for the results.

  Returns:
    The photos. They need not be readable, nor even files.

  Raises:
    ValueError: if an input names nothing, or only files in output.
  """
  output, seen, found = Path(output).resolve(), set(), []
  for one in inputs:
    if not one:
      raise ValueError('--input is empty; give a photo, a folder or a pattern')
    candidates = list(_candidates(one))
    if not candidates:
      raise ValueError(
        f'{one}: no photo there; give --input a photo, a folder with photos '
        f'({" ".join(SUFFIXES)}), or a quoted pattern'
      )
    outside = [c for c in candidates if not _lies_in(c[0], output)]
    if not outside:
      raise ValueError(
        f'{one} lies in the output directory {output}; write elsewhere'
      )
    for path, name in outside:
      # A link with another name counts as another photo.
      key = os.path.realpath(path.parent), path.name
      if key not in seen:
        seen.add(key)
        found.append((path, name))
  return _name(found)


def _candidates(one: str) -> Iterator[tuple[Path, Path]]:
  """Yields (file, its path below the given folder) for one input."""
  root = Path(one)
  if root.is_dir():
    # Links to folders are not followed, since they may form a cycle.
    for folder, folders, names in os.walk(root):
      folders[:] = sorted(f for f in folders if f[0] != '.')
      for name in sorted(names):
        path = Path(folder, name)
        if path.suffix.lower() in SUFFIXES and name[0] != '.':
          yield path, path.relative_to(root)
  elif os.path.lexists(root):  # names may contain [ or *
    yield root, Path(root.name)
  else:
    plain = []
    for part in root.parts[:-1]:
      if glob.has_magic(part):
        break
      plain.append(part)
    for name in sorted(glob.glob(one, recursive=True)):
      if not os.path.isdir(name):
        yield Path(name), Path(name).relative_to(Path(*plain))


def _lies_in(path, folder):
  return folder in Path(os.path.realpath(path.parent), path.name).parents


def _name(found):
  """Gives photos unique names; those that clash keep their suffix."""
  found = [(path, _unreserved(below)) for path, below in found]
  shared, taken, photos = {}, set(), []
  for _, below in found:
    stem = below.with_suffix('').as_posix().casefold()
    shared[stem] = shared.get(stem, 0) + 1
  for path, below in found:
    stem = below.with_suffix('')
    twice = shared[stem.as_posix().casefold()] > 1
    name = base = _shorten(below if twice else stem)
    number = 1
    while name.casefold() in taken:
      number += 1
      name = f'{base}~{number}'
    taken.add(name.casefold())
    photos.append(Photo(path, name))
  return photos


def _unreserved(below):
  """The path, renamed where it would be that of a file of the collection."""
  first, *rest = below.parts
  stem = first if rest else below.stem
  if stem.casefold() not in _RESERVED:
    return below
  return Path(f'{stem}~2' + first[len(stem) :], *rest)


def _shorten(path):
  """Shortens the last part of a path, so that _labels.png can be appended."""
  name = path.name.encode(errors='surrogateescape')
  if len(name) > _LONGEST_NAME:
    start = name[: _LONGEST_NAME - 9].decode(errors='ignore')
    path = path.with_name(f'{start}~{zlib.crc32(name):08x}')
  return path.as_posix()


def read(path: Path) -> np.ndarray:
  """Reads a photo, turned upright as its EXIF data says.

  Args:
    path: the file; of an animation the first frame is read.

  Returns:
    uint8 [H, W, 3] RGB, see `to_rgb`.

  Raises:
    SourceError: in one line, if the file is not a readable photo.
  """
  image = images.open_image(path, high_byte=True)
  try:
    return to_rgb(image)
  except Exception as error:  # damaged EXIF raises anything
    raise outside.SourceError(f'{path}: {outside.reason(error)}') from error


def to_rgb(image: Image.Image) -> np.ndarray:
  """Converts a picture to upright 8-bit RGB if its values have a clear meaning.

  Grey, palette, CMYK, YCbCr and HSV are converted as by Pillow, without colour
  profiles; transparent pictures are put on white; 16-bit grey keeps its higher
  byte.

  Args:
    image: the picture.

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: if pixels are floats, 32-bit integers, or of another mode that
      Pillow cannot convert.
  """
  image = ImageOps.exif_transpose(image)
  if image.mode in ('I', 'F'):
    kind = 'floats' if image.mode == 'F' else '32-bit integers'
    raise ValueError(
      f'image has mode {image.mode}, {kind}, of which nobody knows what is '
      'white; save it with 8 or 16 bits'
    )
  if image.mode.startswith('I;16'):
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  return np.asarray(image.convert('RGB'))


def as_rgb(image: np.ndarray | Image.Image) -> np.ndarray:
  """Converts what a program may hold of a photo.

  Args:
    image: uint8 [H, W, 3] RGB or [H, W] grey, or a Pillow image, see to_rgb.

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: if it is neither.
  """
  if isinstance(image, Image.Image):
    return to_rgb(image)
  image = np.asarray(image)
  if image.ndim == 2:
    image = np.repeat(image[..., None], 3, axis=-1)
  if (
    image.dtype != np.uint8
    or image.ndim != 3
    or image.shape[-1] != 3
    or not image.size
  ):
    raise ValueError(
      'image must be uint8 [H, W, 3] RGB or [H, W] grey, or a Pillow image, '
      f'but is {image.dtype} {list(image.shape)}'
    )
  return image
