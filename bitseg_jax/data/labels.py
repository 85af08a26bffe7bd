"""Reads id maps of one image each from the files that people draw them into."""

import base64
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from bitseg_jax.data import images, outside
from bitseg_jax.data.outside import SourceError

SUFFIXES = '.png', '.tif', '.tiff', '.npy', '.json'
# NAME_labels is what predict writes, the others are cellpose's and others'.
ENDINGS = '', '_labels', '_label', '_masks', '_mask', '_cp_masks'
_PLACES = np.array([1, 256, 65536], np.int32)  # of a colour's R, G, B in its id


def read_label(
  path: str | Path,
  ignore: Sequence[int] = (),
  colours: bool = False,
  note: Callable[[str], Any] = logging.warning,
) -> np.ndarray:
  """Reads the id map in a file.

  Args:
    path: PNG or TIFF of 1 to 32 bits, with a palette, or of colours (id R +
      256 G + 65536 B); .npy of whole numbers; or .json of labelme. Where there
      are negative numbers, those are unlabelled and 0 is an id.
    ignore: ids in the file that mean unlabelled, beside 0.
    colours: the colours of a palette are the ids. Else its numbers are, unless
      number 0 is not black, so that a program must have chosen them anew.
    note: called with a line for each thing in it that may not be meant so.

  Returns:
    int32 [H, W], 0 where unlabelled.

  Raises:
    SourceError: the file cannot be read or does not hold ids.
  """
  path = Path(path)
  say = lambda line: note(f'{path}: {line}')
  if path.suffix.lower() == '.json':
    values = _read_labelme(path, say)
  elif path.suffix.lower() == '.npy':
    values = outside.read_array(path)
  else:
    with outside.named(path, 'unreadable image', 'replace the file'):
      values = _read_image(path, colours, say)
  if values.dtype == bool:
    values = values.astype(np.uint8)
  coloured = values.dtype == np.uint8 and values.shape[2:] == (3,)
  if coloured:
    values = values @ _PLACES
  if values.size and values.dtype.kind in 'if' and values.min() < 0:
    values = np.maximum(values, -1) + 1
    ignore = np.add(ignore, 1)
  ids = outside.check_ids(values, str(path))
  ids = np.where(np.isin(ids, ignore), 0, ids) if len(ignore) else ids
  present = np.unique(ids)
  most = present[-1]
  if most in (255, 65535) and most - 1 not in present and len(present) > 2:
    say(f'{most} is taken for an entity; else make it 0, or --ignore={most}')
  if coloured:
    inner = ndimage.minimum_filter(ids, 3) == ndimage.maximum_filter(ids, 3)
    if 2 * len(np.unique(ids[inner])) < len(present):
      say(
        'has colours in borders alone, as if its edges were smoothed, and each '
        'becomes an entity; export it without anti-aliasing'
      )
  return ids


def _read_image(path, colours, say):
  """Numbers [H, W], or colours uint8 [H, W, 3], of a PNG or TIFF."""
  content = outside.read_bytes(path)
  image = images.open_image(content, path)
  kind = image.format if image else 'TIFF'
  if image and kind == 'TIFF' and image.tag_v2.get(259) in (6, 7):
    kind = 'JPEG'
  if kind not in ('PNG', 'TIFF'):
    raise SourceError(f'{path}: a {kind} file, which mixes ids; export PNG')
  if kind == 'TIFF':  # Pillow would invert what is stored with white as 0
    pages = []
    values = images.read_tiff(content, path, pages.append)[0]
    if pages:
      raise SourceError(f'{path}: has several pages; save one id map per file')
    return values
  if images.is_deep_colour(image):
    raise SourceError(f'{path}: 16 bits per channel; save it with 8 bits')
  image.load()
  if image.mode in ('RGBA', 'LA') and image.getextrema()[-1] == (255, 255):
    image = image.convert(image.mode[:-1])  # opaque
  if image.mode not in ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'RGB'):
    raise SourceError(
      f'{path}: mode {image.mode} holds no ids; save 8 bits, 16 bits or RGB'
    )
  values = np.asarray(image)
  if image.mode != 'P':
    return values
  looked_up = np.asarray(image.convert('RGB'))
  if not colours and any(image.getpalette()[:3]):
    # Only if no two numbers have the same colour.
    colours = len(np.unique(looked_up @ _PLACES)) == len(np.unique(values))
    if colours:
      say('the first colour is not black, so colours are taken for ids')
  return looked_up if colours else values


def _read_labelme(path, say):
  """Paints the shapes of a labelme file in its order, the last on top."""
  content = outside.read_json(path)
  shapes = content.get('shapes') if isinstance(content, dict) else None
  if not isinstance(shapes, list):
    raise SourceError(
      f"{path}: no list 'shapes', so not of labelme; COCO's JSON is for "
      '--dataset=coco_instances'
    )
  with outside.named(path, 'no image', 'save it again in labelme'):
    size = outside.check_size(content['imageHeight'], content['imageWidth'])
  ids, groups, skipped = np.zeros(size, np.int32), {}, set()
  for i, shape in enumerate(shapes):
    with outside.named(path, f'shapes[{i}] is damaged'):
      kind = shape.get('shape_type') or 'polygon'
      if kind not in ('polygon', 'rectangle', 'circle', 'mask'):
        skipped.add(str(kind))
        continue
      label, group = str(shape['label']), shape.get('group_id')
      key = i if group is None else (label, str(group))
      number = groups.setdefault(key, len(groups) + 1)
      background = label in ('_background_', '__ignore__')
      ids[_labelme_pixels(shape, kind, size)] = 0 if background else number
  if skipped:
    say(f'shapes without an area are left out: {sorted(skipped)}')
  return ids


def _labelme_pixels(shape, kind, size):
  points = np.array(shape['points'], np.float64)
  if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
    raise ValueError('points are no list of x, y')
  if np.abs(points).max(initial=0) > 10 * max(size):
    raise ValueError('points far outside of the image')
  canvas = Image.new('1', size[::-1])
  draw = ImageDraw.Draw(canvas)
  if kind == 'polygon':
    if len(points) < 3:
      raise ValueError(f'a polygon of {len(points)} points')
    draw.polygon([tuple(point) for point in points.tolist()], 1, 1)
  elif kind == 'rectangle':
    draw.rectangle([*points.min(0), *points.max(0)], 1, 1)
  elif kind == 'circle':
    centre, edge = points
    radius = np.hypot(*(edge - centre))
    draw.ellipse([*(centre - radius), *(centre + radius)], 1, 1)
  else:
    mask = Image.open(io.BytesIO(base64.b64decode(shape['mask'])))
    corner = np.round(points[0]).astype(int).tolist()
    canvas.paste(mask.convert('1', dither=Image.Dither.NONE), corner)
  return np.asarray(canvas)
