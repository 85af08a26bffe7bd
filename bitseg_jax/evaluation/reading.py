"""Finds and reads predicted segmentations on disk, from any method."""

import functools
import itertools
import logging
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax import IGNORE_ID
from bitseg_jax.data import labels, rle, transforms
from bitseg_jax.data.images import PHOTO_SUFFIXES
from bitseg_jax.data.outside import (
  MAX_PIXELS,
  SourceError,
  as_key,
  check_ids,
  read_array,
  read_json,
  shown,
)

_IMAGES = '.png', '.tif', '.tiff', '.npy'
# By format: the endings and suffixes of an image's only file; what precedes the
# number in the names of several files, and their suffixes.
_FORMS = {
  'labels': (labels.ENDINGS, _IMAGES, '_', _IMAGES),
  'samples': (('',), ('.npy',), '_sample_', _IMAGES),
  'masks': (('',), ('.json',), '_', ('.json',)),
}
FORMATS = 'any', *_FORMS
ORDERS = 'score', 'area'


class Masks(NamedTuple):
  """Masks of one image, the file that they are from, and its size if given."""

  where: str
  masks: list[Any]
  size: Any = None


Part = Path | Masks


def find(
  place: str | Path,
  names: Iterable[str],
  form: str = 'any',
  note: Callable[[str], Any] = logging.warning,
) -> dict[str, list[Part]]:
  """Finds the files that a method predicted for each image to be scored.

  Args:
    place: directory, or a JSON file in COCO's results or instances format.
    names: names of the images. Files may omit its leading folders and the
      suffix of the photo.
    form: one of FORMATS, whose files bitseg_jax/score.py lists; 'any' is labels
      or, if there are none, masks.
    note: called with a line if files may be meant otherwise.

  Returns:
    The parts to `load` for each name; names without a prediction are left out.

  Raises:
    FileNotFoundError: if the place does not exist.
    ValueError: if it is unclear which file belongs to an image, or the JSON is
      not a list of results.
  """
  place, names = Path(place), list(names)
  if place.is_file():
    return _find_results(place, names)
  if not place.is_dir():
    raise FileNotFoundError(f'{place}: no such directory, nor a JSON file')
  # A file that is called as an image is that image's alone: IMG_1.png is no
  # sample of IMG where there is an image IMG_1.
  taken = {place / base for name in names for base in _bases(name)}
  listed = functools.cache(_list)
  forms = ('labels', 'masks') if form == 'any' else (form,)
  found, owners, aside = {}, {}, []
  for name in names:
    for each, base in itertools.product(forms, _bases(name)):
      parts, others = _find_files(place / base, name, each, taken, listed)
      if parts:
        found[name] = parts
        aside += [(parts[0], others[0])] if others else []
        break
    for part in found.get(name, ()):
      _check_owner(owners, part, name, part)
  if aside:
    note(
      f'{aside[0][0]} is the prediction of its image, and {aside[0][1]} is '
      f'taken for that of another (so for {len(aside)} images)'
    )
  return found


def load(
  parts: list[Part],
  shape: tuple[int, int],
  order: str = 'score',
  ignore: Sequence[int] = (),
  note: Callable[[str], Any] = logging.warning,
) -> list[np.ndarray]:
  """Reads the predicted samples of one image at the size of its annotation.

  Args:
    parts: as from find.
    shape: height and width; ids are resized to it by nearest neighbour.
    order: which of overlapping masks is on top: that of the highest 'score'
      (the first of equals), or of the smallest 'area', also if none has one.
    ignore: numbers in files of labels that mean no segment, beside 0.
    note: see labels.read_label.

  Returns:
    Integers [H, W] for each sample. Pixels in no segment, which are 0 in PNGs
    and TIFFs, -1 in arrays and outside all masks, are -1.

  Raises:
    SourceError: if a file is damaged, or does not fit the annotation's shape.
  """
  samples = []
  for part in parts:
    where = part.where if isinstance(part, Masks) else part
    kind = '' if isinstance(part, Masks) else part.suffix.lower()
    if kind == '.json':
      content = read_json(part)
      if not isinstance(content, dict) or 'shapes' not in content:
        part = Masks(str(part), _masks_in(content, part))
    if isinstance(part, Masks):
      id_maps = [_paint(part, shape, order)]
    elif kind == '.npy':
      ids = read_array(part)
      if ids.dtype.kind not in 'iu' or ids.ndim not in (2, 3) or not ids.size:
        raise SourceError(
          f'{part}: holds {ids.dtype} {list(ids.shape)}; it should be integers '
          '[H, W] or [N, H, W], at least -1'
        )
      # Unsigned numbers could not hold the -1.
      ids = np.where(np.isin(ids, ignore), np.int64(IGNORE_ID), ids)
      ids = ids.reshape(-1, *ids.shape[-2:])
      id_maps = [check_ids(each, part, IGNORE_ID) for each in ids]
    else:
      id_maps = [labels.read_label(part, ignore, note=note) - 1]
    for id_map in id_maps:
      _check_shape(where, id_map.shape, shape)
      if id_map.shape != shape:
        id_map = transforms.resize_ids(id_map, shape)
      samples.append(id_map)
  return samples


def _bases(name):
  """What the files of an image may be called, the most exact first."""
  names = name, _without_suffix(name)
  return dict.fromkeys((*names, *map(_last, names)))


def _last(name):
  return PurePosixPath(name).name


def _without_suffix(name):
  path = PurePosixPath(name)
  known = path.suffix.lower() in PHOTO_SUFFIXES
  return str(path.with_suffix('')) if known else name


def _key(name: Any) -> str:
  """Drops the suffix of a photo and the leading zeros of a COCO id."""
  name = _without_suffix(str(name).replace('\\', '/'))
  return str(int(name)) if name.isdecimal() else name


def _list(folder):
  """Files of a folder by their name without the suffix."""
  found = defaultdict(list)
  for path in sorted(folder.iterdir()) if folder.is_dir() else ():
    if path.is_file() and not path.name.startswith('.'):
      found[path.stem].append(path)
  return found


def _find_files(path, name, form, taken, listed):
  """(files of one image in one format, others that may be meant for it)."""
  endings, kinds, link, several_kinds = _FORMS[form]

  def at(ending, kinds):
    stem = path.name + ending
    if ending and path.with_name(stem) in taken:
      return []
    files = listed(path.parent).get(stem, ())
    return [file for file in files if file.suffix.lower() in kinds]

  one = [file for ending in endings for file in at(ending, kinds)]
  first = 0 if at(f'{link}0', several_kinds) else 1
  numbered = (at(f'{link}{n}', several_kinds) for n in itertools.count(first))
  counted = list(itertools.takewhile(bool, numbered))
  inside = [
    file
    for stem, files in listed(path).items()
    for file in files
    if file.suffix.lower() in several_kinds and path / stem not in taken
  ]
  both = counted[0] + inside if counted and inside and not one else []
  for clash in both, one, *counted:
    if len(clash) > 1:
      raise SourceError(
        f'{clash[0]} and {clash[1]} are both there for image {name}; keep one '
        'of them'
      )
  several = [files[0] for files in counted] or sorted(
    inside, key=lambda file: (len(file.name), file.name)
  )
  return (one, several) if one else (several, [])


def _find_results(path, names):
  """Groups the masks in a list of results, or of COCO's instances, by image."""
  content = read_json(path)
  images = content.get('images') if isinstance(content, dict) else None
  named, sizes, numbers = {}, {}, {}
  for image in images if isinstance(images, list) else ():
    if isinstance(image, dict) and {'id', 'file_name'} <= image.keys():
      number, name = as_key(image['id']), as_key(image['file_name'])
      if numbers.setdefault(_key(name), number) != number:
        raise SourceError(
          f'{path}: the images {numbers[_key(name)]} and {number} are both '
          f'called {name}; their names, without the suffix, must differ'
        )
      named[number] = name
      sizes[_key(name)] = [image.get('height'), image.get('width')]
  masks = {key: [] for key in sizes}  # an image that is listed may have none
  for i, mask in enumerate(_masks_in(content, path)):
    keys = [as_key(mask[k]) for k in ('file_name', 'image_id') if k in mask]
    if not keys:
      raise SourceError(f"{path}: entry {i} has neither 'image_id' nor a name")
    masks.setdefault(_key(named.get(keys[0], keys[0])), []).append(mask)
  by_name = defaultdict(list)  # whatever folders other programs put before it
  for key in masks:
    by_name[_key(_last(key))].append(key)
  found, owners = {}, {}
  for name in names:
    short = _key(_last(name))
    alone = by_name[short] if len(by_name[short]) == 1 else []
    key = next((k for k in (_key(name), short, *alone) if k in masks), None)
    if key is not None:
      _check_owner(owners, key, name, f'{path}: {key}')
      where = f'{path}, image {name}'
      found[name] = [Masks(where, masks[key], sizes.get(key))]
  return found


def _check_owner(owners, part, name, shown_part):
  """Notes that a part is of an image, and refuses it to be of two."""
  owner = owners.setdefault(part, name)
  if owner != name:
    raise SourceError(
      f'{shown_part}: may be of image {owner} and of image {name}; keep the '
      'folders of the images, or rename it'
    )


def _masks_in(masks, path):
  if isinstance(masks, dict):
    masks = masks.get('annotations')
  if not isinstance(masks, list) or not all(isinstance(m, dict) for m in masks):
    raise SourceError(
      f"{path}: should be a list of {{'segmentation': run lengths, 'score': "
      "number}, have one under 'annotations', or be of labelme"
    )
  if masks and 'segments_info' in masks[0]:
    raise SourceError(f'{path}: of COCO panoptic; give the folder of its PNGs')
  return masks


def _paint(part, shape, order):
  """Paints masks over each other: int32 [H, W], number of the topmost mask."""
  where, masks, size = part
  if not masks:
    return np.full(shape, IGNORE_ID, np.int32)
  own = masks[0].get('segmentation')
  size = own.get('size') if isinstance(own, dict) else size or list(shape)
  try:
    height, width = map(operator.index, size)
    good = min(height, width) >= 1 and height * width <= MAX_PIXELS
  except (TypeError, ValueError):
    good = False
  if not good:
    raise SourceError(f'{where}: mask 0 is of size {shown(size)}')
  # Before memory is taken for a canvas of that size.
  _check_shape(where, (height, width), shape)
  ranks, pixels = [], []
  scored = any('score' in m or 'predicted_iou' in m for m in masks)
  for i, mask in enumerate(masks):
    try:
      pixels.append(rle.decode(mask.get('segmentation'), height, width))
    except ValueError as error:
      raise SourceError(f'{where}: mask {i}: {error}') from error
    rank = -len(pixels[-1])
    if order == 'score' and scored:
      rank = mask.get('score', mask.get('predicted_iou'))
      # Not finite numbers have no order, and huge ones are a mistake.
      if type(rank) not in (int, float) or not abs(rank) < 2**53:
        raise SourceError(
          f'{where}: mask {i} has the score {shown(rank)}, no number to sort '
          'by; give it one, or --order=area'
        )
    ranks.append(rank)
  canvas = np.full(height * width, IGNORE_ID, np.int32)
  # The lowest is painted first; of equals, the first one is painted last.
  for i in sorted(range(len(masks)), key=lambda i: (ranks[i], -i)):
    canvas[pixels[i]] = i
  return canvas.reshape(width, height).T


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
