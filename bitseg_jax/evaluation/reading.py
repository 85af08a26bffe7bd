"""Finds and reads predicted segmentations on disk, from any method."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bitseg_jax import IGNORE_ID
from bitseg_jax.data import rle, transforms
from bitseg_jax.data.families.folder import PHOTO_SUFFIXES
from bitseg_jax.data.source import SourceError, read_label

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
      owner = owners.setdefault(part, name)
      if owner != name:
        raise SourceError(
          f'{part}: may be of image {owner} and of image {name}; keep the '
          'folders of the images, or rename it'
        )
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
      inside = [p for p in (root / base).iterdir() if p.suffix in suffixes]
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
  """Returns the existing files start0, start1, ... (or from 1) up to a gap."""
  paths: list[Path] = []
  number = 0 if Path(f'{start}0{suffix}').is_file() else 1
  while (path := Path(f'{start}{number + len(paths)}{suffix}')).is_file():
    paths.append(path)
  return paths


def _find_results(path: Path, names: Iterable[str]) -> dict[str, list[Part]]:
  """Groups the masks in a list of results by image."""
  masks: dict[Any, list[Any]] = {}
  for i, mask in enumerate(_read_masks(path)):
    keys = [mask[k] for k in ('file_name', 'image_id') if k in mask]
    if not keys:
      raise SourceError(f"{path}: entry {i} has neither 'image_id' nor a name")
    masks.setdefault(_key(str(keys[0])), []).append(mask)
  found = {}
  for name in names:
    for key in dict.fromkeys((_key(name), _key(Path(name).name))):
      if key in masks:
        found[name] = [(f'{path}, image {name}', masks[key])]
        break
  return found


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
  try:
    ids = np.load(path, allow_pickle=False)
  except (ValueError, OSError, EOFError) as error:
    reason = ' '.join(str(error).split())
    raise SourceError(f'{path}: not a whole .npy file ({reason})') from error
  if (
    not isinstance(ids, np.ndarray)
    or ids.dtype.kind not in 'iu'
    or ids.ndim not in (2, 3)
    or not ids.size
    or ids.min() < IGNORE_ID
  ):
    raise SourceError(
      f'{path}: holds {getattr(ids, "dtype", "several arrays")} '
      f'{list(getattr(ids, "shape", []))}; it should be integers [H, W] or '
      '[N, H, W], at least -1'
    )
  ids = ids.astype(np.int64)
  return list(ids) if ids.ndim == 3 else [ids]


def _read_masks(path: Path) -> list[Any]:
  try:
    masks = json.loads(path.read_bytes())
  except ValueError as error:
    raise SourceError(f'{path}: not whole JSON ({error})') from error
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
  try:
    height, width = masks[0]['segmentation']['size']
  except (KeyError, TypeError, ValueError) as error:
    raise SourceError(
      f"{where}: mask 0 has no run lengths {{'size', 'counts'}}"
    ) from error
  canvas = np.full(height * width, IGNORE_ID, np.int32)
  pixels, scores = [], []
  for i, mask in enumerate(masks):
    segmentation = mask.get('segmentation')
    score = mask.get('score', mask.get('predicted_iou'))
    if order == 'score' and not isinstance(score, int | float):
      raise SourceError(
        f"{where}: mask {i} has no 'score'; give it one, or --order=area"
      )
    try:
      if not isinstance(segmentation, dict):
        raise ValueError('no run lengths')
      pixels.append(rle.decode(segmentation, height, width))
    except ValueError as error:
      raise SourceError(f'{where}: mask {i}: {error}') from error
    scores.append(score if order == 'score' else -len(pixels[-1]))
  # The lowest is painted first; of equals, the first one is painted last.
  for i in sorted(range(len(masks)), key=lambda i: (scores[i], -i)):
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
