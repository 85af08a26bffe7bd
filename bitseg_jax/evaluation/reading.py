"""Finds and reads predicted segmentations on disk, from any method."""

import functools
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bitseg_jax import IGNORE_ID
from bitseg_jax.data import rle, transforms
from bitseg_jax.data.images import PHOTO_SUFFIXES
from bitseg_jax.data.labels import read_label
from bitseg_jax.data.outside import (
  MAX_PIXELS,
  SourceError,
  as_key,
  check_ids,
  read_array,
  read_json,
  shown,
)

# By format: the endings of an image's only file; what precedes the number in
# the names of several files, and their suffixes.
_ENDINGS = {
  'labels': ('_labels.png', '.png', '.npy'),
  'samples': ('.npy',),
  'masks': ('.json',),
}
_NUMBERED = {
  'labels': ('_', ('.png', '.npy')),
  'samples': ('_sample_', ('.png', '.npy')),
  'masks': ('_', ('.json',)),
}
FORMATS = 'any', *_ENDINGS
ORDERS = 'score', 'area'

# A file, or the place that masks come from and the masks.
Part = Path | tuple[str, list[Any]]


def find(
  place: str | Path, names: Iterable[str], form: str = 'any'
) -> dict[str, list[Part]]:
  """Finds the files that a method predicted for each image to be scored.

  Args:
    place: directory, or a JSON file in COCO's results format.
    names: names of the images. Files may omit its leading folders and the
      suffix of the photo.
    form: 'labels': NAME_labels.png, NAME.png or NAME.npy; or several samples,
      NAME_0.png, NAME_1.png, ... or a folder NAME/. 'samples': likewise, but
      NAME_sample_1.png, ... as predict writes them beside its labels. 'masks':
      NAME.json. 'any': labels or, if there are none, masks.

  Returns:
    The parts to `load` for each name; names without a prediction are left out.

  Raises:
    FileNotFoundError: if the place does not exist.
    ValueError: if it is unclear which file belongs to an image, or the JSON is
      not a list of results.
  """
  place = Path(place)
  if place.is_file():
    return _find_results(place, names)
  if not place.is_dir():
    raise FileNotFoundError(f'{place}: no such directory, nor a JSON file')
  found, owners = {}, {}
  for name in names:
    if form == 'any':
      parts = _find_files(place, name, 'labels')
      parts = parts or _find_files(place, name, 'masks')
    else:
      parts = _find_files(place, name, form)
    for part in parts:
      _check_owner(owners, part, name, part)
    if parts:
      found[name] = parts
  return found


def load(
  parts: list[Part], shape: tuple[int, int], order: str = 'score'
) -> list[np.ndarray]:
  """Reads the predicted samples of one image at the size of its annotation.

  Args:
    parts: as from find.
    shape: height and width; ids are resized to it by nearest neighbour.
    order: which of overlapping masks is on top: the one with the highest
      'score' (the first of equals) or the one with the smallest 'area'.

  Returns:
    Integers [H, W] for each sample. Pixels in no segment, which are 0 in PNGs,
    -1 in arrays and outside all masks, are -1.

  Raises:
    SourceError: if a file is damaged, or does not fit the annotation's shape.
  """
  samples = []
  for part in parts:
    where, id_maps = _read(part, shape, order)
    for id_map in id_maps:
      _check_shape(where, id_map.shape, shape)
      if id_map.shape != shape:
        id_map = transforms.resize_ids(id_map, shape)
      samples.append(id_map)
  return samples


def _find_files(root: Path, name: str, form: str) -> list[Path]:
  stem = name
  if Path(name).suffix.lower() in PHOTO_SUFFIXES:
    stem = str(Path(name).with_suffix(''))
  link, suffixes = _NUMBERED[form]
  for base in dict.fromkeys((name, stem, Path(name).name, Path(stem).name)):
    paths = [root / f'{base}{ending}' for ending in _ENDINGS[form]]
    ways = [[path] for path in paths if path.is_file()]
    ways += [_count_up(f'{root / base}{link}', suffix) for suffix in suffixes]
    if (root / base).is_dir():
      inside = [
        path
        for path in (root / base).iterdir()
        if path.suffix in suffixes and not path.name.startswith('.')
      ]
      ways.append(sorted(inside, key=lambda p: (len(p.name), p.name)))
    ways = [way for way in ways if way]
    if len(ways) > 1:
      raise SourceError(
        f'{ways[0][0]} and {ways[1][0]} are both there for image {name}; keep '
        'one of them'
      )
    if ways:
      return ways[0]
  return []


def _count_up(start: str, suffix: str) -> list[Path]:
  """Returns the existing files start0, start1, ... (or from 1).

  Raises:
    SourceError: a number is missing between them.
  """
  path_of = lambda number: Path(f'{start}{number}{suffix}')
  folder, name = os.path.split(start)
  numbers = sorted(_numbers_in(folder).get((name, suffix), ()))
  first = 0 if numbers[:1] == [0] else 1
  for expected, number in enumerate(numbers, first):
    if number != expected:
      raise SourceError(
        f'{path_of(expected)} is missing, but {path_of(number)} is there'
      )
  return [path_of(number) for number in numbers]


@functools.lru_cache(maxsize=4)
def _numbers_of(folder, changed):
  """{(start of the name, suffix): numbers} of the files START7.SUFFIX."""
  del changed  # a part of the key
  found: dict[tuple[str, str], list[int]] = {}
  for name in os.listdir(folder):
    parts = re.fullmatch(r'(.*?)(0|[1-9][0-9]{0,8})(\.\w+)', name, re.DOTALL)
    if parts:
      found.setdefault((parts[1], parts[3]), []).append(int(parts[2]))
  return found


def _numbers_in(folder):
  try:
    return _numbers_of(folder, os.stat(folder).st_mtime_ns)
  except OSError:
    return {}


def _find_results(path: Path, names: Iterable[str]) -> dict[str, list[Part]]:
  """Groups the masks in a list of results by image."""
  content = read_json(path)
  named = _names_of_ids(content, path)
  masks: dict[Any, list[Any]] = {}
  for i, mask in enumerate(_masks_in(content, path)):
    keys = [mask[k] for k in ('file_name', 'image_id') if k in mask]
    if not keys:
      raise SourceError(f"{path}: entry {i} has neither 'image_id' nor a name")
    key = as_key(keys[0])
    masks.setdefault(_key(str(named.get(key, key))), []).append(mask)
  found, owners = {}, {}
  for name in names:
    for key in dict.fromkeys((_key(name), _key(Path(name).name))):
      if key in masks:
        _check_owner(owners, key, name, f'{path}: {key}')
        found[name] = [(f'{path}, image {name}', masks[key])]
        break
  return found


def _names_of_ids(content, path):
  """Names by image_id, of JSON that lists its images as COCO's files do."""
  images = content.get('images') if isinstance(content, dict) else None
  if not isinstance(images, list):
    return {}
  named, owners = {}, {}
  for image in images:
    if isinstance(image, dict) and {'id', 'file_name'} <= image.keys():
      number, name = as_key(image['id']), as_key(image['file_name'])
      named[number] = name
      owner = owners.setdefault(_key(str(name)), number)
      if owner != number:
        raise SourceError(
          f'{path}: the images {owner} and {number} are both called {name}; '
          'their names, without the suffix, must differ'
        )
  return named


def _check_owner(owners, part, name, shown_part):
  """Notes that a part is of an image, and refuses it to be of two."""
  owner = owners.setdefault(part, name)
  if owner != name:
    raise SourceError(
      f'{shown_part}: may be of image {owner} and of image {name}; keep the '
      'folders of the images, or rename it'
    )


def _key(name: str) -> str:
  """Drops the suffix of a photo and the leading zeros of a COCO id."""
  if Path(name).suffix.lower() in PHOTO_SUFFIXES:
    name = str(Path(name).with_suffix(''))
  return str(int(name)) if name.isdecimal() else name


def _read(part, shape, order):
  """Returns the name of a part for error messages, and its id maps."""
  if not isinstance(part, Path):
    where, masks = part
    return where, [_paint(masks, where, shape, order)]
  if part.suffix == '.json':
    return part, [_paint(_read_masks(part), part, shape, order)]
  if part.suffix == '.npy':
    return part, _read_array(part)
  return part, [read_label(part) - 1]


def _read_array(path: Path) -> list[np.ndarray]:
  ids = read_array(path)
  if ids.dtype.kind not in 'iu' or ids.ndim not in (2, 3) or not ids.size:
    raise SourceError(
      f'{path}: holds {ids.dtype} {list(ids.shape)}; it should be integers '
      '[H, W] or [N, H, W], at least -1'
    )
  samples = ids if ids.ndim == 3 else ids[None]
  return [check_ids(sample, path, IGNORE_ID) for sample in samples]


def _read_masks(path: Path) -> list[Any]:
  return _masks_in(read_json(path), path)


def _masks_in(masks, path):
  if isinstance(masks, dict):
    masks = masks.get('annotations')
  if not isinstance(masks, list) or not all(isinstance(m, dict) for m in masks):
    raise SourceError(
      f"{path}: should be a list of {{'segmentation': run lengths, 'score': "
      "number}, or have one under 'annotations'"
    )
  return masks


def _paint(masks, where, shape, order):
  """Paints masks over each other: int32 [H, W], number of the topmost mask."""
  if not masks:
    return np.full(shape, IGNORE_ID, np.int32)
  height, width = _mask_size(masks[0], where)
  # Before memory is taken for a canvas of that size.
  _check_shape(where, (height, width), shape)
  canvas = np.full(height * width, IGNORE_ID, np.int32)
  pixels, scores = [], []
  for i, mask in enumerate(masks):
    segmentation = mask.get('segmentation')
    try:
      if not isinstance(segmentation, dict):
        raise ValueError('no run lengths')
      pixels.append(rle.decode(segmentation, height, width))
    except ValueError as error:
      raise SourceError(f'{where}: mask {i}: {error}') from error
    score = -len(pixels[-1])
    scores.append(_score_of(mask, i, where) if order == 'score' else score)
  # The lowest is painted first; of equals, the first one is painted last.
  for i in sorted(range(len(masks)), key=lambda i: (scores[i], -i)):
    canvas[pixels[i]] = i
  return canvas.reshape(width, height).T


def _mask_size(mask, where):
  """(height, width) that the run lengths of a mask are of."""
  segmentation = mask.get('segmentation')
  size = segmentation.get('size') if isinstance(segmentation, dict) else None
  if (
    not isinstance(size, list)
    or len(size) != 2
    or not all(type(side) is int and side > 0 for side in size)
    or size[0] * size[1] > MAX_PIXELS
  ):
    raise SourceError(
      f"{where}: mask 0 has no run lengths {{'size', 'counts'}}"
    )
  return size


def _score_of(mask, number, where):
  score = mask.get('score', mask.get('predicted_iou'))
  if score is None:
    raise SourceError(
      f"{where}: mask {number} has no 'score'; give it one, or --order=area"
    )
  # Among numbers that are not finite there is no order.
  if type(score) not in (int, float) or not -math.inf < score < math.inf:
    raise SourceError(
      f'{where}: mask {number} has the score {shown(score)}, no finite number'
    )
  return score


def _check_shape(where, shape, wanted):
  """Rejects a prediction of another aspect ratio, perhaps of another image."""
  small, large = sorted((shape, tuple(wanted)), key=max)
  expected = transforms.fit_longest_side(*large, max(small))
  if np.abs(np.subtract(expected, small)).max() > 1:
    raise SourceError(
      f'{where}: is {shape[1]}x{shape[0]} but its annotation is '
      f'{wanted[1]}x{wanted[0]}, which is no enlargement of it; crop padding '
      'off, or see whether it is of this image'
    )
