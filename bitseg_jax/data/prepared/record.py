"""Encodes and decodes a stored record: JPEG photo, 8- or 16-bit PNG id maps.

The value of a PNG pixel is its compact id + 1, and 0 where ignored.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from bitseg_jax.data.outside import SourceError
from bitseg_jax.data.source import Item, Source, load_example

MAX_IDS = 65_534
MAX_SIDE = 65_500  # of a JPEG
JPEG_QUALITY = 95


def encode(
  source: Source, item: Item, longest_side: int
) -> tuple[dict[str, Any], list[int]] | str:
  """Reads one item of a source and encodes it as a record.

  Args:
    source: the source of the item.
    item: the item to encode.
    longest_side: a larger photo shrinks to it, in pixels; 0 keeps its size.
      Photos shrink by area averaging, ids by the nearest pixel.

  Returns:
    The record {'name', 'image': JPEG, 'id_maps': list of PNG} and the number
    of entities of each map; or, if a file is at fault, one line that says so.
  """
  try:
    example = load_example(source, item)
    image, id_maps = shrink(example['image'], example['id_maps'], longest_side)
    if max(image.shape) > MAX_SIDE:
      raise SourceError(
        f'{item.photo}: a side of {max(image.shape)} pixels; at most '
        f'{MAX_SIDE} can be stored; give a --longest_side'
      )
    pngs, num_entities = zip(
      *(_encode_id_map(m, item.label(i)) for i, m in enumerate(id_maps)),
      strict=True,
    )
  except SourceError as error:
    # The name of a file may hold bytes that are no text.
    return str(error).encode(errors='backslashreplace').decode()
  if example['plain_jpeg'] and image is example['image']:
    jpeg = item.photo.read_bytes()
  else:
    buffer = io.BytesIO()
    # Subsampled colour would blur the borders between entities.
    Image.fromarray(image).save(
      buffer, 'JPEG', quality=JPEG_QUALITY, subsampling=0
    )
    jpeg = buffer.getvalue()
  record = {'name': example['name'], 'image': jpeg, 'id_maps': list(pngs)}
  return record, list(num_entities)


def decode(record: dict[str, Any], wanted_side: int = 0) -> dict[str, Any]:
  """Decodes a stored record into photo and id maps.

  Args:
    record: as read from disk, {'name', 'image': JPEG, 'id_maps': PNGs}.
    wanted_side: longest side in pixels that the photo will be shrunk to later.
      A photo of four times that or more is decoded at 1/2, 1/4 or 1/8 of its
      size, at least twice wanted_side; id maps keep their size. 0 = full size.

  Returns:
    {'name': str, 'image': uint8 [H, W, 3] RGB, 'id_maps': sequence of int32
    [H, W]}. Each id map is decoded only when it is indexed; its ids are 0, 1,
    ... without gaps, -1 where unlabelled.
  """
  with Image.open(io.BytesIO(record['image'])) as photo:
    whole = photo.size
    if wanted_side:
      least = 2 * wanted_side / max(whole)
      photo.draft(None, tuple(max(1, int(n * least)) for n in whole))
    # The last line of a small decoding may lie mostly beyond the photo.
    factor = round(max(whole) / max(photo.size))
    width, height = (max(1, round(n / factor)) for n in whole)
    rgb = photo if photo.mode == 'RGB' else photo.convert('RGB')
    image = np.array(rgb)[:height, :width]
  return {
    'name': record['name'].decode(),
    'image': image,
    'id_maps': IdMaps(record['id_maps']),
  }


class IdMaps(Sequence):
  """Decodes a photo's id maps only when indexed, as training draws just one."""

  def __init__(self, pngs: Sequence[bytes]):
    self._pngs = pngs

  def __len__(self) -> int:
    return len(self._pngs)

  def __getitem__(self, index: int) -> np.ndarray:
    with Image.open(io.BytesIO(self._pngs[index])) as stored:
      return np.subtract(np.asarray(stored), 1, dtype=np.int32)


def shrink(
  image: np.ndarray, id_maps: list[np.ndarray], longest_side: int
) -> tuple[np.ndarray, list[np.ndarray]]:
  """Shrinks photo (area average) and id maps (nearest pixel) to be stored.

  Args:
    image: uint8 [H, W, 3].
    id_maps: int32 [H, W] each.
    longest_side: in pixels; a smaller photo keeps its size, and 0 keeps any.

  Returns:
    The image and the id maps.
  """
  height, width = image.shape[:2]
  if not longest_side or max(height, width) <= longest_side:
    return image, id_maps
  scale = longest_side / max(height, width)
  size = max(1, round(width * scale)), max(1, round(height * scale))
  small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
  nearest = Image.Resampling.NEAREST
  return np.asarray(small), [
    np.asarray(Image.fromarray(id_map).resize(size, nearest))
    for id_map in id_maps
  ]


def _encode_id_map(id_map: np.ndarray, label: Any) -> tuple[bytes, int]:
  ids = np.unique(id_map)
  ids = ids[ids >= 0]
  if not len(ids):
    raise SourceError(f'{label}: an annotation without any entity')
  if len(ids) > MAX_IDS:
    raise SourceError(
      f'{label}: an annotation with {len(ids)} ids; at most {MAX_IDS} can be '
      'stored'
    )
  stored = np.searchsorted(ids, id_map, side='right')
  if len(ids) < 256:
    # Palette PNGs are not filtered, so they decode four times as fast.
    png = Image.fromarray(stored.astype(np.uint8)).convert('P')
  else:
    png = Image.fromarray(stored.astype(np.uint16))
  buffer = io.BytesIO()
  png.save(buffer, 'PNG')
  return buffer.getvalue(), len(ids)
