"""Reads prepared datasets: what is in them, and the records of a split."""

import dataclasses
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bitseg_jax.data.outside import named, read_json

NAME = 'entity_segmentation'
VERSION = '1.0.0'


def dataset_path(data_dir: str | Path) -> Path:
  """Returns the path of a prepared dataset within its output directory."""
  return Path(data_dir) / NAME / VERSION


def read_metadata(data_dir: str | Path) -> dict[str, Any]:
  """Reads the metadata of a prepared dataset, without its records.

  They are its `dataset`, `longest_side`, `options`, and `splits`: for each the
  number of `images`, those by `annotators_per_image`, and the id maps by
  `entities_per_map`. FileNotFoundError or SourceError if there is none whole.
  """
  path = dataset_path(data_dir) / 'metadata.json'
  if not path.is_file():
    raise FileNotFoundError(
      f'no prepared dataset in {data_dir}; make it with: python -m '
      'bitseg_jax.prepare --dataset=NAME --source=DIR '
      f'--output={shlex.quote(str(data_dir))}'
    )
  metadata = read_json(path)
  with named(path, 'is damaged', 'copy or prepare the dataset again'):
    metadata['dataset'], metadata['longest_side'], format_table(metadata)
  return metadata


def format_table(metadata: dict[str, Any], num_codes: int = 64) -> str:
  """Formats the counts of `read_metadata`, one line per split."""
  row = '{:<8}{:>8}{:>18}{:>15}{:>8}{:>7}'.format
  head = 'images', 'annotators/image', 'entities/map', 'max', f'<= {num_codes}'
  lines = [row('split', *head)]
  for split, counts in metadata['splits'].items():
    maps = {int(k): n for k, n in counts['entities_per_map'].items()}
    images, num_maps = counts['images'], sum(maps.values())
    mean = sum(k * n for k, n in maps.items()) / num_maps
    fitting = sum(n for k, n in maps.items() if k <= num_codes) / num_maps
    spread = f'{num_maps / images:.2f}', f'{mean:.1f}', max(maps)
    lines.append(row(split, images, *spread, f'{fitting:.1%}'))
  return '\n'.join(lines)


@dataclasses.dataclass(frozen=True)
class SplitReader:
  """One split of a prepared dataset, a sequence of records as from `decode`."""

  place: Path
  split: str
  wanted_side: int
  records: Sequence = dataclasses.field(repr=False)

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f'record {index} of {len(self)}')
    what = f'record {index} of {self.split} is damaged'
    with named(self.place, what, 'copy or prepare it again'):
      return decode(self.records[index], self.wanted_side)


def open_split(
  data_dir: str | Path, split: str, wanted_side: int = 0
) -> SplitReader:
  """Opens one split of a prepared dataset; `decode` has more on wanted_side.

  Raises FileNotFoundError or ValueError if it is not there, or damaged.
  """
  import tensorflow_datasets as tfds  # half a second that few commands need

  known = read_metadata(data_dir)['splits']
  if split not in known:
    raise ValueError(
      f'{data_dir} has no split {split!r}; it has {", ".join(known)}'
    )
  place = dataset_path(data_dir)
  with named(place, 'is damaged', 'copy or prepare it again'):
    builder = tfds.builder_from_directory(place)
    info = builder.info.splits[split]
    files = [place / name for name in info.filenames]
    size = sum(file.stat().st_size for file in files if file.is_file())
    if size != info.num_bytes:  # lost or cut short when it was copied
      raise ValueError(f'{split} has {size} bytes of {info.num_bytes}')
    keep = {'image': tfds.decode.SkipDecoding()}
    records = builder.as_data_source(split, decoders=keep)
  return SplitReader(place, split, wanted_side, records)


def decode(record: dict[str, Any], wanted_side: int = 0) -> dict[str, Any]:
  """Decodes a stored record, {'name', 'image': JPEG, 'id_maps': PNGs}.

  A photo of four times wanted_side or more is decoded at 1/2, 1/4 or 1/8 of its
  size, at least twice wanted_side; id maps keep their size. 0 = full size.

  Returns:
    {'name': str, 'image': uint8 [H, W, 3] RGB, 'id_maps': sequence of int32
    [H, W], one per annotator, of ids 0, 1, ... without gaps, or -1}.
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
  id_maps = IdMaps(record['id_maps'])
  return {'name': record['name'].decode(), 'image': image, 'id_maps': id_maps}


class IdMaps(Sequence):
  """Decodes a photo's id maps only when indexed, as training draws just one."""

  def __init__(self, pngs: Sequence[bytes]):
    self.pngs = pngs  # compact id + 1, 0 where unlabelled

  def __len__(self) -> int:
    return len(self.pngs)

  def __getitem__(self, index: int) -> np.ndarray:
    with Image.open(io.BytesIO(self.pngs[index])) as stored:
      return np.subtract(np.asarray(stored), 1, dtype=np.int32)
