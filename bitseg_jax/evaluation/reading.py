"""Finds and reads predicted segmentations on disk, from any method."""

import functools
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax import IGNORE_ID
from bitseg_jax.data import labels, outside, rle, transforms
from bitseg_jax.data.images import PHOTO_SUFFIXES
from bitseg_jax.data.outside import SourceError

_IMAGES = '.png', '.tif', '.tiff', '.npy'
# By format: the endings of an image's only file, what precedes the number in
# the names of several files, and their suffixes.
_FORMS = {
  'labels': (labels.ENDINGS, '_', _IMAGES),
  'samples': ((), '_sample_', _IMAGES),
  'masks': (('',), '_', ('.json',)),
}
FORMATS = 'any', *_FORMS
ORDERS = 'score', 'area'


class Masks(NamedTuple):
  """Masks of one image, where they are from, and its size if given."""

  where: str
  masks: list[dict[str, Any]]
  size: Any = None

  def __str__(self) -> str:
    return self.where


Part = Path | Masks


def find(
  place: str | Path, names: Iterable[str], form: str = 'any'
) -> dict[str, list[Part]]:
  """Finds the files that a method predicted for each image to be scored.

  Args:
    place: directory, or a JSON file in COCO's results or instances format.
    names: of the images. Files may omit leading folders and the photo's suffix.
    form: one of FORMATS, whose files bitseg_jax/score.py lists; 'any' is labels
      or, if there are none, masks.

  Returns:
    The parts to `load` for each name; names without a prediction are left out.

  Raises:
    FileNotFoundError: if the place does not exist.
    SourceError: if it is unclear whose a file is, or the JSON is of no format.
  """
  place, names = Path(place), list(names)
  if place.is_file():
    found = _find_masks(place, names)
  elif place.is_dir():
    found = _find_files(place, names, form)
  else:
    raise FileNotFoundError(f'{place}: no such directory, nor a JSON file')
  owners = {}
  for name, parts in found.items():
    for part in map(str, parts):
      owner = owners.setdefault(part, name)
      if owner != name:
        raise SourceError(
          f'{part}: may be of image {owner} and of image {name}; keep the '
          'folders of the images, or rename it'
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
    kind = '' if isinstance(part, Masks) else part.suffix.lower()
    if kind == '.json':
      content = outside.read_json(part)
      if not isinstance(content, dict) or 'shapes' not in content:
        part = Masks(str(part), _masks_in(content, part))
    if isinstance(part, Masks):
      id_maps = [_paint(part, shape, order)]
    elif kind == '.npy':
      array = outside.read_array(part)
      several = array if array.ndim == 3 and len(array) else [array]
      id_maps = [outside.check_ids(ids, part, IGNORE_ID) for ids in several]
      for ids in id_maps:
        ids[np.isin(ids, ignore)] = IGNORE_ID
    else:
      id_maps = [labels.read_label(part, ignore, note=note) - 1]
    for id_map in id_maps:
      _check_shape(part, id_map.shape, shape)
      samples.append(transforms.resize_ids(id_map, shape))
  return samples


def _bases(name):
  """What the files of an image may be called, the most exact first."""
  names = name, _without_suffix(name)
  return dict.fromkeys((*names, *(PurePosixPath(n).name for n in names)))


def _without_suffix(name):
  path = PurePosixPath(name)
  known = path.suffix.lower() in PHOTO_SUFFIXES
  return str(path.with_suffix('')) if known else name


def _find_files(place, names, form):
  # A file that is called as an image is that image's alone: IMG_1.png is no
  # sample of IMG where there is an image IMG_1.
  taken = {place / base for name in names for base in _bases(name)}

  @functools.cache
  def listed(folder):
    """Files of a folder by their name without the suffix."""
    found = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
      if path.is_file() and not path.name.startswith('.'):
        found[path.stem].append(path)
    return found

  def files_of(path, form):
    """The files of an image that is called so, in one format."""
    endings, link, suffixes = _FORMS[form]
    fits = lambda file: file.suffix.lower() in suffixes

    def at(ending):
      stem = path.name + ending
      if ending and path.with_name(stem) in taken:
        return []
      return list(filter(fits, listed(path.parent).get(stem, ())))

    one = list(itertools.chain(*map(at, endings)))
    numbers = itertools.count(0 if at(f'{link}0') else 1)
    numbered = (at(f'{link}{n}') for n in numbers)
    counted = list(itertools.takewhile(bool, numbered))
    for clash in one, *counted:
      if len(clash) > 1:
        raise SourceError(
          f'{clash[0]} and {clash[1]} are both there for image {path.name}; '
          'keep one of them'
        )
    return one or [files[0] for files in counted]

  forms = ('labels', 'masks') if form == 'any' else (form,)
  found = {}
  for name in names:
    tries = itertools.product(forms, _bases(name))
    every = (files_of(place / base, each) for each, base in tries)
    if files := next(filter(None, every), None):
      found[name] = files
  return found


def _key(name: Any) -> str:
  """Drops the suffix of a photo and the leading zeros of a COCO id."""
  name = _without_suffix(str(name).replace('\\', '/'))
  return str(int(name)) if name.isdecimal() else name


def _find_masks(path, names):
  content = outside.read_json(path)
  entries = _masks_in(content, path)
  images = content.get('images', ()) if isinstance(content, dict) else ()
  called, sizes, masks = {}, {}, {}  # by id; by key, as the masks
  with outside.named(path, 'not in the format of COCO'):
    for image in images:
      name = image.get('file_name', image['id'])
      called[image['id']] = name
      if _key(name) in masks:
        raise ValueError(f'two images are called {outside.shown(name)}')
      if 'height' in image:
        sizes[_key(name)] = image['height'], image['width']
      masks[_key(name)] = []  # it may have none
    for mask in entries:
      image = mask['image_id'] if 'image_id' in mask else mask['file_name']
      name = mask.get('file_name', called.get(image, image))
      masks.setdefault(_key(name), []).append(mask)
  last = lambda name: _key(PurePosixPath(name).name)
  by_last = defaultdict(list)  # whatever folders other programs put before it
  for key in masks:
    by_last[last(key)].append(key)
  found = {}
  for name in names:
    same = by_last[last(name)]
    exact = [key for key in (_key(name), last(name)) if key in masks]
    for key in exact[:1] or (same if len(same) == 1 else ()):
      found[name] = [Masks(f'{path}: {key}', masks[key], sizes.get(key))]
  return found


def _masks_in(content, path):
  masks = content.get('annotations') if isinstance(content, dict) else content
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
  size = own.get('size') if isinstance(own, dict) else size or shape
  with outside.named(where, 'mask 0'):
    height, width = outside.check_size(*size)
  # Before memory is taken for a canvas of that size.
  _check_shape(where, (height, width), shape)
  ranks, pixels = [], []
  scored = any('score' in m or 'predicted_iou' in m for m in masks)
  for i, mask in enumerate(masks):
    with outside.named(where, f'mask {i}'):
      pixels.append(rle.decode(mask.get('segmentation'), height, width))
      rank = -len(pixels[-1])
      if order == 'score' and scored:
        rank = mask.get('score', mask.get('predicted_iou'))
        # Not finite numbers have no order, and huge ones are a mistake.
        if type(rank) not in (int, float) or not abs(rank) < 2**53:
          raise ValueError(
            f'has the score {outside.shown(rank)}, no number to sort by; give '
            'it one, or --order=area'
          )
      ranks.append(rank)
  canvas = np.full(height * width, IGNORE_ID, np.int32)
  # The lowest is painted first; of equals, the first one is painted last.
  for i in sorted(range(len(masks)), key=lambda i: (ranks[i], -i)):
    canvas[pixels[i]] = i
  return canvas.reshape(width, height).T


def _check_shape(where, shape, wanted):
  small, large = sorted((shape, tuple(wanted)), key=max)
  expected = transforms.fit_longest_side(*large, max(small))
  if np.abs(np.subtract(expected, small)).max() > 1:
    raise SourceError(
      f'{where}: is {shape[1]}x{shape[0]} but its annotation is '
      f'{wanted[1]}x{wanted[0]}, which is no enlargement of it; crop padding '
      'off, or see whether it is of this image'
    )
