"""Reads photos of any kind as upright RGB of 8 bits, for every command."""

import io
import logging
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pillow_heif
from PIL import Image, ImageOps

from bitseg_jax.data import outside
from bitseg_jax.data.outside import MAX_PIXELS, SourceError

pillow_heif.register_heif_opener()
# Large photos are expected, and of damaged ones our own line tells enough.
warnings.filterwarnings('ignore', module=r'PIL\.')
(getattr(cv2, 'setLogLevel', None) or cv2.utils.logging.setLogLevel)(0)

PHOTO_SUFFIXES = (
  *('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.avif'),
  *('.gif', '.heic', '.heif', '.jp2', '.pgm', '.ppm'),
)
EXIF = 'apply', 'ignore'
PERCENTILES = 0.2, 99.8  # of deep pixels, which become black and white
_ORIENTATION = 0x0112  # the EXIF tag


class Decoded(NamedTuple):
  """A photo, and what its file says of it."""

  image: np.ndarray  # uint8 [H, W, 3] RGB
  orientation: int  # of its EXIF data, from 1 to 8; 1 is upright
  plain: bool  # whether the file is a JPEG of exactly these pixels


def read_photo(
  source: Any,
  exif: str = 'apply',
  page: int = 0,
  note: Callable[[str], Any] = logging.warning,
) -> np.ndarray:
  """Reads a photo from wherever it is.

  Args:
    source: a path, the bytes of a file, an open file, a Pillow image, or an
      array [H, W], [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA of any numbers.
    exif: 'apply' turns the photo upright as its EXIF data says, 'ignore' leaves
      the pixels as they are stored.
    page: which page of a stack or an animation, from 0.
    note: called with a line for each thing done that a user may not expect.

  Returns:
    uint8 [H, W, 3] RGB. Transparent pixels are laid on white; pixels of more
    than 8 bits are stretched, so that their PERCENTILES are black and white.

  Raises:
    SourceError: it is no photo or damaged.
  """
  return open_photo(source, exif, page, note).image


def open_photo(source: Any, exif: str, page: int, note: Callable) -> Decoded:
  """Reads a photo as `read_photo` does."""
  if exif not in EXIF:
    raise ValueError(f'exif is {exif!r}; choose one of {", ".join(EXIF)}')
  where = getattr(source, 'filename', '') or 'the image'
  if isinstance(source, str | os.PathLike):
    where, source = os.fspath(source), outside.read_bytes(Path(source))
  elif hasattr(source, 'read'):
    source = source.read()
  say = lambda line: note(f'{where}: {line}')
  orientation, plain = 1, False
  with outside.named(where, 'unreadable image', 'replace the file'):
    if isinstance(source, bytes | bytearray | memoryview):
      content = bytes(source)
      source = open_image(content, where)
      if source is None or _is_deep_tiff(source):
        source, orientation, inverted = read_tiff(content, where, say, page)
        if inverted:
          source = -source if source.dtype.kind == 'f' else ~source
      else:
        # The other pictures of an MPO are small copies.
        count = 1 if source.format == 'MPO' else getattr(source, 'n_frames', 1)
        _check_page(page, count, where, say)
        source.seek(page)
        plain = source.format == 'JPEG' and source.mode in ('RGB', 'L')
        is_deep = is_deep_colour(source)
        orientation = _take_orientation(source)
        if is_deep:  # Pillow would drop the lower bytes
          source.load()  # notices damage
          source = _read_by_opencv(content, where)
    elif isinstance(source, Image.Image) and exif == 'apply':
      source = ImageOps.exif_transpose(source)
    if isinstance(source, Image.Image) and source.mode[0] not in 'IF':
      kind = 'RGBA' if source.has_transparency_data else 'RGB'
      source = source.convert(kind)
    image = _to_rgb(np.asarray(source), where, say)
  if exif == 'apply':
    image, plain = _turn(image, orientation), plain and orientation == 1
  return Decoded(np.ascontiguousarray(image), orientation, plain)


def open_image(content: bytes, where: Any) -> Image.Image | None:
  """Opens an image, but does not decode it; None for a TIFF of unknown kind."""
  if not content:
    raise SourceError(f'{where}: empty file')
  Image.init()
  formats = [name for name in Image.ID if name != 'EPS']  # runs Ghostscript
  try:
    return Image.open(io.BytesIO(content), formats=formats)
  except Image.UnidentifiedImageError as error:
    if content[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
      return None
    raise ValueError('not an image Pillow knows') from error


def is_deep_colour(image: Image.Image) -> bool:
  """Whether it is a PNG, not yet decoded, of 16 bits per channel."""
  raw = str(image.tile[0].args) if image.tile else ''
  deep = image.mode in ('RGB', 'RGBA', 'LA') and ';16' in raw
  return deep and image.format == 'PNG'


def _is_deep_tiff(image):
  """Whether it is a TIFF whose numbers Pillow may change."""
  if image.format != 'TIFF':
    return False
  bits, formats = image.tag_v2.get(258, (1,)), image.tag_v2.get(339, (1,))
  return max(bits) > 8 or formats[0] not in (1, 4)


def read_tiff(
  content: bytes, where: Any, say: Callable[[str], Any], page: int = 0
) -> tuple[np.ndarray, int, bool]:
  """Reads (numbers [H, W(, C)], EXIF orientation, if the largest is black)."""
  import tifffile  # half a second that few photos need

  logging.getLogger('tifffile').setLevel(logging.CRITICAL)
  with tifffile.TiffFile(io.BytesIO(content)) as file:
    _check_page(page, len(file.pages), where, say)
    part = file.pages[page]
    if math.prod(part.shape) > 4 * MAX_PIXELS:
      raise ValueError(f'of size {list(part.shape)}')
    if part.photometric in (5, 8):  # CMYK or CIELAB
      raise ValueError(f'{part.photometric.name} pixels; save it as RGB')
    tag = part.tags.get(_ORIENTATION)
    orientation = tag.value if tag and tag.value in range(1, 9) else 1
    try:
      pixels = part.asarray()
      if part.axes == 'SYX':
        pixels = np.moveaxis(pixels, 0, -1)
      if part.samplesperpixel == 4 and not {1, 2} & {*part.extrasamples}:
        pixels = pixels[..., :3]  # the fourth, as infrared, is no alpha
    except ValueError as error:
      if page or 'imagecodecs' not in str(error):
        raise
      # A compression that Pillow and OpenCV know, which turns it upright.
      if part.bitspersample > 8 and part.samplesperpixel > 1:
        pixels, orientation = _read_by_opencv(content, where), 1
      else:
        image = open_image(content, where)
        _take_orientation(image)
        pixels = np.asarray(image.copy())  # of the size as stored
    return pixels, orientation, part.photometric == 0


def _take_orientation(image):
  """Returns the EXIF orientation, by which Pillow may not turn it any more."""
  try:
    exif = image.getexif()
    found, exif[_ORIENTATION] = exif.get(_ORIENTATION, 1), 1
  except Exception:  # damaged EXIF raises anything
    return 1
  return found if found in range(1, 9) else 1


def _check_page(page, count, where, say):
  if not 0 <= page < count:
    raise SourceError(f'{where}: has {count} pages, from 0, and no page {page}')
  if count > 1 and not page:
    say(f'the first of its {count} pages is read; page=N reads others')


def _read_by_opencv(content, where):
  """Pixels as stored, perhaps of 16 bits per channel, grey or RGB(A)."""
  pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
  if pixels is None:
    raise SourceError(f'{where}: of an unknown compression; save it without')
  is_grey = pixels.ndim == 2
  return pixels if is_grey else pixels[..., [2, 1, 0, 3][: pixels.shape[-1]]]


def _to_rgb(pixels, where, say):
  """Turns numbers [H, W(, C)] of any type into uint8 [H, W, 3]."""
  if pixels.ndim == 2:
    pixels = pixels[..., None]
  known = pixels.ndim == 3 and pixels.shape[-1] in (1, 3, 4)
  if not known or pixels.dtype.kind not in 'biuf' or not pixels.size:
    raise SourceError(
      f'{where}: a photo is [H, W] grey, [H, W, 3] RGB or [H, W, 4] RGBA, but '
      f'this is {pixels.dtype} {list(pixels.shape)}'
    )
  colours, alpha = pixels[..., :3], pixels[..., 3:]
  if pixels.dtype == bool:
    colours = colours * np.uint8(255)
  elif pixels.dtype != np.uint8:
    colours = _stretch(colours, where, say)
  colours = np.broadcast_to(colours, (*colours.shape[:2], 3))
  most = np.iinfo(alpha.dtype).max if alpha.dtype.kind in 'iu' else 1
  if alpha.size and alpha.min() < most:
    say('transparent pixels are laid on white')
    cover = (alpha / np.float32(most)).clip(0, 1)
    mixed = 255 - cover * (255 - colours.astype(np.float32))
    colours = np.round(mixed).astype(np.uint8)
  return colours


def _stretch(values, where, say):
  """Stretches values of any type to uint8; what is not finite is black."""
  kind, finite = values.dtype, np.isfinite(values)
  if not finite.any():
    raise SourceError(f'{where}: no pixel is a finite number')
  values = np.where(finite, values, values[finite].min()).astype(np.float64)
  low, high = np.percentile(values, PERCENTILES)
  if low == high:
    low, high = values.min(), values.max()
  say(f'{kind} pixels are stretched: {low:.6g} becomes black, {high:.6g} white')
  scale = 255 / (high - low) if high > low else 0.0
  return np.round(((values - low) * scale).clip(0, 255)).astype(np.uint8)


def _turn(pixels, orientation):
  if orientation in (5, 6, 7, 8):
    pixels = np.swapaxes(pixels, 0, 1)
  if orientation in (3, 4, 7, 8):
    pixels = pixels[::-1]
  if orientation in (2, 3, 6, 7):
    pixels = pixels[:, ::-1]
  return pixels
