"""Decodes image files that others made: photos, and PNGs of ids."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bitseg_jax.data.outside import SourceError, read_bytes, reason

_EXIF_ORIENTATION = 0x0112
_ID_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'RGB')


def open_image(path: Path, high_byte: bool = False) -> Image.Image:
  """Reads and decodes a whole image file.

  Args:
    path: the file.
    high_byte: for colours of 16 bits per channel, take the higher 8 bits.

  Returns:
    The decoded image, not yet rotated as EXIF says.

  Raises:
    SourceError: if the file is missing, truncated or no image, or has colours
      of 16 bits per channel and high_byte is False.
  """
  content = read_bytes(path)
  if not content:
    raise SourceError(f'{path}: empty file')
  Image.init()
  # Pillow would start Ghostscript on EPS.
  formats = [name for name in Image.ID if name != 'EPS']
  # Pillow raises a different type for each format and kind of damage: OSError,
  # SyntaxError, struct.error, zlib.error, DecompressionBombError, ...
  try:
    with warnings.catch_warnings():
      # Large photos are expected; Pillow still refuses huge ones.
      warnings.simplefilter('ignore', Image.DecompressionBombWarning)
      image = Image.open(io.BytesIO(content), formats=formats)
    raw_mode = str(image.tile[0].args) if image.tile else ''
    image.load()
  except Exception as error:
    why = reason(error)
    if 'cannot identify image file' in why:
      why = 'not an image Pillow knows'
    raise SourceError(
      f'{path}: unreadable image ({why}); replace the file or remove it'
    ) from error
  if image.mode in ('RGB', 'RGBA') and ';16' in raw_mode and not high_byte:
    # Pillow drops the lower byte, which holds ids or dark tones.
    raise SourceError(
      f'{path}: 16 bits per channel; save it with 8 bits per channel'
    )
  return image


def read_photo(path: Path) -> tuple[np.ndarray, bool]:
  """Reads a photo from a file, rotated upright as EXIF says.

  Args:
    path: the file.

  Returns:
    The photo, uint8 [H, W, 3] RGB, and whether the file is a JPEG of exactly
    these pixels, which can be stored as it is.

  Raises:
    SourceError: if it cannot be read or has more than 8 bits per channel.
  """
  photo = open_image(path)
  if photo.mode.startswith(('I', 'F')):
    raise SourceError(
      f'{path}: pixels of mode {photo.mode}, more than 8 bits per channel; '
      'save it with 8 bits per channel'
    )
  plain_jpeg = photo.format == 'JPEG' and photo.mode in ('RGB', 'L')
  try:
    turned = photo.getexif().get(_EXIF_ORIENTATION, 1) != 1
    image = np.asarray(ImageOps.exif_transpose(photo).convert('RGB'))
  except Exception as error:  # damaged EXIF, see open_image
    raise SourceError(f'{path}: unreadable image ({reason(error)})') from error
  return image, plain_jpeg and not turned


def read_label(path: Path) -> np.ndarray:
  """Reads an id map from a PNG file.

  Args:
    path: 8-bit, 16-bit or palette PNG, or colours R + 256 G + 65536 B.

  Returns:
    The ids of the file, unchanged, int32 [H, W].

  Raises:
    SourceError: if the file cannot be read or does not hold ids.
  """
  image = open_image(path)
  if image.format != 'PNG':  # JPEG, whatever it is called, mixes neighbours
    raise SourceError(
      f'{path}: a {image.format} file, which may not keep ids; save it as PNG'
    )
  if image.mode == 'RGBA' and image.getextrema()[3] == (255, 255):
    image = image.convert('RGB')
  if image.mode not in _ID_MODES:
    raise SourceError(
      f'{path}: pixels of mode {image.mode} where ids should be; save it as '
      'an 8-bit, 16-bit, palette or RGB PNG'
    )
  ids = np.asarray(image).astype(np.int32)
  return ids @ np.array([1, 256, 65536], np.int32) if ids.ndim == 3 else ids
