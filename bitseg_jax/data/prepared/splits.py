"""Reads prepared datasets: what is in them, and the records of a split."""

import shlex
from pathlib import Path
from typing import Any

from bitseg_jax.data.outside import SourceError, read_json, reason
from bitseg_jax.data.prepared import record

_NAME = 'entity_segmentation'  # TFDS makes it from the builder's class name
VERSION = '1.0.0'
UNFINISHED = 'unfinished-'  # begins the folder of a preparation under way


def dataset_path(data_dir: str | Path) -> Path:
  """Returns the path of a prepared dataset within its output directory."""
  return Path(data_dir) / _NAME / VERSION


def check_no_links(data_dir: str | Path) -> None:
  """Raises SourceError if what is to be written would go through a link."""
  final = dataset_path(data_dir)
  unfinished = Path(data_dir).glob(f'{UNFINISHED}*')
  for path in (Path(data_dir), final.parent, final, *unfinished):
    if path.is_symlink():
      raise SourceError(
        f'{path} is a link; give as output the folder that it leads to'
      )


def read_metadata(data_dir: str | Path) -> dict[str, Any]:
  """Reads the metadata of a prepared dataset, without its records.

  Args:
    data_dir: directory given as output when it was prepared.

  Returns:
    `dataset`, its source's name; `longest_side`; `options`; and `splits`: for
    each split the number of `images` and two histograms with strings as keys,
    `annotators_per_image` (images by number of annotators) and
    `entities_per_map` (id maps by number of entities).

  Raises:
    FileNotFoundError: if there is no prepared dataset.
    SourceError: if its metadata is damaged.
  """
  path = dataset_path(data_dir) / 'metadata.json'
  if not path.is_file():
    raise FileNotFoundError(
      f'no prepared dataset in {data_dir}; make it with: python -m '
      'bitseg_jax.prepare --dataset=NAME --source=DIR '
      f'--output={shlex.quote(str(data_dir))}'
    )
  metadata = read_json(path)
  if not _is_metadata(metadata):
    raise SourceError(f'{path} is damaged; copy or prepare the dataset again')
  return metadata


def _is_metadata(metadata):
  """Whether all is there that is used."""
  try:
    return (
      all(
        isinstance(split['images'], int)
        and split['images'] > 0
        and sum(map(int, split['entities_per_map'])) > 0
        and sum(split['entities_per_map'].values()) > 0
        and split['annotators_per_image'].keys()
        for split in metadata['splits'].values()
      )
      and {'dataset', 'longest_side'} <= metadata.keys()
    )
  except (AttributeError, KeyError, TypeError, ValueError):
    return False


def share_that_fits(split: dict[str, Any], num_codes: int) -> float:
  """Share of a split's annotations with at most num_codes entities.

  Args:
    split: one of the `splits` of `read_metadata`.
    num_codes: entities that a model can tell apart.

  Returns:
    Share in [0, 1].
  """
  maps = {int(k): n for k, n in split['entities_per_map'].items()}
  fitting = sum(n for k, n in maps.items() if k <= num_codes)
  return fitting / sum(maps.values())


def format_table(metadata: dict[str, Any], num_codes: int = 64) -> str:
  """Formats the counts of `read_metadata`, one line per split."""
  row = '{:<8}{:>8}{:>18}{:>15}{:>8}{:>7}'
  lines = [
    row.format(
      'split',
      'images',
      'annotators/image',
      'entities/map',
      'max',
      f'<= {num_codes}',
    )
  ]
  for split, counts in metadata['splits'].items():
    maps = {int(k): n for k, n in counts['entities_per_map'].items()}
    num_maps = sum(maps.values())
    lines.append(
      row.format(
        split,
        counts['images'],
        f'{num_maps / counts["images"]:.2f}',
        f'{sum(k * n for k, n in maps.items()) / num_maps:.1f}',
        max(maps),
        f'{share_that_fits(counts, num_codes):.1%}',
      )
    )
  return '\n'.join(lines)


class SplitReader:
  """Reads one split by index, see open_split; safe to share and to pickle."""

  def __init__(self, data_dir: str | Path, split: str, wanted_side: int = 0):
    import tensorflow_datasets as tfds  # half a second that few commands need

    metadata = read_metadata(data_dir)
    if split not in metadata['splits']:
      raise ValueError(
        f'{data_dir} has no split {split!r}; '
        f'it has {", ".join(metadata["splits"])}'
      )
    self._arguments = (data_dir, split, wanted_side)
    try:
      builder = tfds.builder_from_directory(dataset_path(data_dir))
      _check_files(builder.info.splits[split], dataset_path(data_dir))
      self._records = builder.as_data_source(
        split, decoders={'image': tfds.decode.SkipDecoding()}
      )
    except SourceError:
      raise
    except Exception as error:  # TFDS has no common type
      raise SourceError(
        f'{dataset_path(data_dir)} is damaged ({reason(error)}); copy or '
        'prepare it again'
      ) from error

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f'record {index} of {len(self)}')
    try:
      return record.decode(self._records[index], self._arguments[2])
    except Exception as error:  # of ArrayRecord, protobuf, Pillow, ...
      data_dir, split, _ = self._arguments
      raise SourceError(
        f'{dataset_path(data_dir)}: record {index} of {split} is damaged '
        f'({reason(error)}); copy or prepare it again'
      ) from error

  def __repr__(self) -> str:
    return f'SplitReader{self._arguments!r}'

  def __reduce__(self) -> tuple:
    return SplitReader, self._arguments


def open_split(
  data_dir: str | Path, split: str, wanted_side: int = 0
) -> SplitReader:
  """Opens one split of a prepared dataset, to read with grain or by index.

  Args:
    data_dir: directory given as output when it was prepared.
    split: 'train', 'val' or 'test'.
    wanted_side: longest side in pixels that photos will be shrunk to later, see
      record.decode; 0 reads photos at full size.

  Returns:
    A sequence of records as from record.decode: {'name': str, 'image': uint8
    [H, W, 3] RGB, 'id_maps': sequence of int32 [H, W], one per annotator}.

  Raises:
    FileNotFoundError: if there is no prepared dataset.
    ValueError: if it has no such split or its files are damaged.
  """
  return SplitReader(data_dir, split, wanted_side)


def _check_files(split_info: Any, directory: Path) -> None:
  """Checks that no file was lost or cut short when a dataset was copied."""
  paths = [directory / name for name in split_info.filenames]
  size = sum(path.stat().st_size for path in paths if path.is_file())
  if size != split_info.num_bytes:
    raise SourceError(
      f'{directory} is damaged: {split_info.name} has {size} bytes of '
      f'{split_info.num_bytes}; copy or prepare it again'
    )
