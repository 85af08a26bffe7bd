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
    form: 'labels': NAME.png, NAME.tif or NAME.npy, or such a NAME_labels,
      NAME_masks, ...; or several samples, NAME_0.png, NAME_1.png, ... or a
      folder NAME/. 'samples': likewise, but NAME_sample_1.png, ... as predict
      writes them beside its labels. 'masks': NAME.json. 'any': labels or, if
      there are none, masks.
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
  found, owners, aside = {}, {}, []
  for name in names:
    for each in ('labels', 'masks') if form == 'any' else (form,):
      parts, others = _find_files(place, name, each, taken, listed)
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
    order: which of overlapping masks is on top: the one with the highest
      'score' (the first of equals) or the one with the smallest 'area'. Where
      no mask has a score, it is the area.
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
    kind = '' if isinstance(part, Masks) else part.suffix.lower()
    if kind == '.json':
      content = read_json(part)
      if not isinstance(content, dict) or 'shapes' not in content:
        part, kind = Masks(str(part), _masks_in(content, part)), ''
    where = part if kind else part.where
    if not kind:
      id_maps = [_paint(part, shape, order)]
    elif kind == '.npy':
      ids = read_array(part)
      if ids.dtype.kind not in 'iu' or ids.ndim not in (2, 3) or not ids.size:
        raise SourceError(
          f'{part}: holds {ids.dtype} {list(ids.shape)}; it should be integers '
          '[H, W] or [N, H, W], at least -1'
        )
      id_maps = [
        np.where(np.isin(sample, ignore), IGNORE_ID, sample)
        for sample in ids.reshape(-1, *ids.shape[-2:])
      ]
      id_maps = [check_ids(id_map, part, IGNORE_ID) for id_map in id_maps]
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
  stem = _without_suffix(name)
  of = lambda path: PurePosixPath(path).name
  return dict.fromkeys((name, stem, of(name), of(stem)))


def _without_suffix(name):
  path = PurePosixPath(name)
  known = path.suffix.lower() in PHOTO_SUFFIXES
  return str(path.with_suffix('')) if known else name


def _list(folder):
  """Files of a folder by their name without the suffix."""
  found = defaultdict(list)
  for path in sorted(folder.iterdir()) if folder.is_dir() else ():
    if path.is_file() and not path.name.startswith('.'):
      found[path.stem].append(path)
  return found


def _find_files(root, name, form, taken, listed):
  """(files of one image in one format, others that may be meant for it)."""
  endings, kinds, link, several_kinds = _FORMS[form]
  for base in _bases(name):
    path = root / base

    def at(ending, kinds, path=path):
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
    clash = next((way for way in [one, *counted] if len(way) > 1), None)
    if counted and inside and not one:
      clash = counted[0] + inside
    if clash:
      raise SourceError(
        f'{clash[0]} and {clash[1]} are both there for image {name}; keep one '
        'of them'
      )
    several = [files[0] for files in counted] or sorted(
      inside, key=lambda file: (len(file.name), file.name)
    )
    if one or several:
      return (one, several) if one else (several, [])
  return [], []


def _find_results(path: Path, names: Iterable[str]) -> dict[str, list[Part]]:
  """Groups the masks in a list of results by image."""
  content = read_json(path)
  named, sizes = _images_in(content, path)
  masks: dict[Any, list[Any]] = {}
  for i, mask in enumerate(_masks_in(content, path)):
    keys = [mask[k] for k in ('file_name', 'image_id') if k in mask]
    if not keys:
      raise SourceError(f"{path}: entry {i} has neither 'image_id' nor a name")
    key = as_key(keys[0])
    masks.setdefault(_key(named.get(key, key)), []).append(mask)
  by_name = defaultdict(list)  # whatever folders other programs put before it
  for key in {*masks, *sizes}:
    by_name[_key(PurePosixPath(key).name)].append(key)
  found, owners = {}, {}
  for name in names:
    short = _key(PurePosixPath(name).name)
    alone = by_name[short] if len(by_name[short]) == 1 else []
    for key in dict.fromkeys((_key(name), short, *alone)):
      # An image that is listed without masks has none.
      if key in masks or key in sizes:
        _check_owner(owners, key, name, f'{path}: {key}')
        where = f'{path}, image {name}'
        found[name] = [Masks(where, masks.get(key, []), sizes.get(key))]
        break
  return found


def _images_in(content, path):
  """Names by id and sizes by name, of JSON that lists images as COCO's do."""
  images = content.get('images') if isinstance(content, dict) else None
  named, sizes, owners = {}, {}, {}
  for image in images if isinstance(images, list) else ():
    if isinstance(image, dict) and {'id', 'file_name'} <= image.keys():
      number, name = as_key(image['id']), as_key(image['file_name'])
      named[number] = name
      owner = owners.setdefault(_key(name), number)
      if owner != number:
        raise SourceError(
          f'{path}: the images {owner} and {number} are both called {name}; '
          'their names, without the suffix, must differ'
        )
      sizes[_key(name)] = [image.get('height'), image.get('width')]
  return named, sizes


def _check_owner(owners, part, name, shown_part):
  """Notes that a part is of an image, and refuses it to be of two."""
  owner = owners.setdefault(part, name)
  if owner != name:
    raise SourceError(
      f'{shown_part}: may be of image {owner} and of image {name}; keep the '
      'folders of the images, or rename it'
    )


def _key(name: Any) -> str:
  """Drops the suffix of a photo and the leading zeros of a COCO id."""
  name = _without_suffix(str(name).replace('\\', '/'))
  return str(int(name)) if name.isdecimal() else name


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


def _paint(part: Masks, shape: tuple[int, int], order: str) -> np.ndarray:
  """Paints masks over each other: int32 [H, W], number of the topmost mask."""
  where, masks, size = part
  if not masks:
    return np.full(shape, IGNORE_ID, np.int32)
  own = masks[0].get('segmentation')
  size = own.get('size') if isinstance(own, dict) else size or list(shape)
  try:
    height, width = map(operator.index, size)
    if min(height, width) < 1 or height * width > MAX_PIXELS:
      raise ValueError
  except (TypeError, ValueError) as error:
    raise SourceError(f'{where}: mask 0 is of size {shown(size)}') from error
  # Before memory is taken for a canvas of that size.
  _check_shape(where, (height, width), shape)
  canvas, ranks, pixels = np.full(height * width, IGNORE_ID, np.int32), [], []
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
