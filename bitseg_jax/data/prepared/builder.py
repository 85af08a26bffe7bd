"""Writes and reads prepared datasets: ArrayRecord files, through TFDS.

DIR/entity_segmentation/VERSION/ appears only once everything is written. Until
then all files are in DIR/unfinished-KEY, from which the next run continues.
"""

import contextlib
import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from bitseg_jax.data.outside import SourceError
from bitseg_jax.data.prepared import encoding
from bitseg_jax.data.prepared.splits import UNFINISHED, VERSION, dataset_path
from bitseg_jax.data.source import Item, Source

# A reader keeps every shard open, and TFDS holds one in memory to write it.
SHARD_BYTES = 64 * 2**20
MOST_SHARDS = 256


class _LocalInfo(tfds.core.DatasetInfo):
  """Does not ask TFDS's server, for which a temporary folder would be left."""

  def initialize_from_bucket(self) -> None:
    pass


class EntitySegmentation(tfds.core.ShardBasedBuilder):
  """Builds the TFDS dataset of photos with one id map for each annotator."""

  # Shard based, because TFDS's GeneratorBasedBuilder imports TensorFlow to
  # shuffle splits over 1 GiB; here grain shuffles when reading.

  VERSION = tfds.core.Version(VERSION)

  def __init__(
    self,
    source: Source,
    dataset: str,
    longest_side: int,
    strict: bool,
    options: dict[str, Any],
    progress: tqdm,
    encoded_dir: Path,
    **kwargs: Any,
  ):
    self.problems = list(source.problems)
    self._source = source
    self._strict = strict
    self._longest_side = longest_side
    self._progress = progress
    self._encoded_dir = encoded_dir
    self._counts: dict[str, tuple[Counter[int], Counter[int]]] = {}
    self._splits: dict[str, dict[str, Any]] = {}
    self._metadata = tfds.core.MetadataDict(
      dataset=dataset,
      longest_side=longest_side,
      options=options,
      splits=self._splits,
    )
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    # id_maps are bytes, because TFDS cannot decode 16-bit PNG without OpenCV.
    return _LocalInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'name': tfds.features.Text(),
          'image': tfds.features.Image(encoding_format='jpeg'),
          'id_maps': tfds.features.Sequence(
            tfds.features.Text(doc='16-bit PNG: compact id + 1, 0 = ignored')
          ),
        }
      ),
      metadata=self._metadata,
    )

  def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list]:
    del dl_manager
    shards = {}
    for split, items in self._source.splits.items():
      examples = self._examples(split, items)
      # The first records tell how large the others will be.
      first = list(islice(examples, encoding.BLOCK))
      sizes = [_size(example) for _, example in first]
      records = _records_a_shard(len(items), sum(sizes) / max(len(sizes), 1))
      # The shards of a split are written in turn, all from one stream.
      stream = chain(first, examples)
      shards[split] = [partial(islice, stream, records)] * -(
        -len(items) // records
      )
    return shards

  def _examples(
    self, split: str, items: list[Item]
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    stream = encoding.encode_blocks(
      self._source,
      items,
      self._longest_side,
      self._encoded_dir / split,
      self._progress.update,
    )
    annotators, entities = self._counts[split] = Counter(), Counter()
    for result in stream:
      if isinstance(result, str):
        self.problems.append(result)
        continue
      example, num_entities = result
      annotators[len(num_entities)] += 1
      entities.update(num_entities)
      yield example['name'], example

  def _download_and_prepare(self, **kwargs: Any) -> None:
    super()._download_and_prepare(**kwargs)
    for split, (annotators, entities) in self._counts.items():
      if annotators:
        self._splits[split] = {
          'images': annotators.total(),
          'annotators_per_image': dict(sorted(annotators.items())),
          'entities_per_map': dict(sorted(entities.items())),
        }
    # The directory is not renamed yet, so raising here leaves no dataset.
    if not self._splits:
      raise SourceError('nothing is left')
    if self._strict and self.problems:
      raise SourceError('there are problems, and --strict was given')


def _size(example: dict[str, Any]) -> int:
  return len(example['image']) + sum(map(len, example['id_maps']))


def _records_a_shard(num_records: int, mean_size: float) -> int:
  """How many records a shard holds: few where they are large."""
  by_size = int(SHARD_BYTES / max(mean_size, 1))
  return max(by_size, -(-num_records // MOST_SHARDS), 1)


def write_dataset(
  source: Source,
  data_dir: str | Path,
  dataset: str,
  longest_side: int = 512,
  strict: bool = False,
  options: dict[str, Any] | None = None,
  key: str = '',
) -> tuple[list[str], str | None]:
  """Writes a source as a prepared dataset.

  A dataset that is there already stays until the new one is whole.

  Args:
    source: the source to write.
    data_dir: directory that will hold the dataset.
    dataset: the source's name, stored with the data.
    longest_side: larger photos shrink to it, in pixels; 0 keeps their size.
    strict: write nothing if any item has a problem; what is encoded stays.
    options: how the source was opened, stored with the data.
    key: name of this preparation, see `encoding.fingerprint`; a call continues
      an interrupted one of the same key, and '' starts anew.

  Returns:
    One line for each item left out, and why nothing was written, else None.
  """
  unfinished = unfinished_path(data_dir, key)
  if not key:
    shutil.rmtree(unfinished, ignore_errors=True)
  written = unfinished / 'written'
  shutil.rmtree(written, ignore_errors=True)  # TFDS quickly writes it again
  total = sum(map(len, source.splits.values()))
  with tqdm(total=total, unit=' images', mininterval=1) as progress:
    builder = EntitySegmentation(
      source,
      dataset,
      longest_side,
      strict,
      options or {},
      progress,
      unfinished / 'encoded',
      data_dir=written,
      file_format='array_record',
    )
    try:
      _run_quietly(builder)
    except SourceError as error:
      shutil.rmtree(written if strict else unfinished)
      return builder.problems, str(error)
    except RuntimeError as error:
      # ArrayRecord raises this on a full disk. Any other error is a bug.
      if '() failed: ' not in str(error):
        raise
      return builder.problems, str(error).split(';')[0]
  final = dataset_path(data_dir)
  shutil.rmtree(final, ignore_errors=True)
  final.parent.mkdir(exist_ok=True)
  dataset_path(written).rename(final)
  shutil.rmtree(unfinished)
  return builder.problems, None


def unfinished_path(data_dir: str | Path, key: str) -> Path:
  """Where a preparation of this key keeps what it has done so far."""
  return Path(data_dir) / f'{UNFINISHED}{key}'


def encode_part(
  source: Source,
  data_dir: str | Path,
  longest_side: int,
  key: str,
  part: tuple[int, int],
) -> tuple[int, int]:
  """Does one part of the encoding, for `write_dataset` to go on with.

  Args:
    source, data_dir, longest_side, key: see `write_dataset`.
    part: (index, count), see encoding.encode_part.

  Returns:
    How many items the part has, and how many of them would be left out.
  """
  folder = unfinished_path(data_dir, key) / 'encoded'
  with tqdm(unit=' images', mininterval=1) as progress:
    how = longest_side, folder, part, progress.update
    return encoding.encode_part(source, *how)


def _run_quietly(builder):
  # TFDS makes an empty download directory and prints a size it cannot know.
  with (
    tempfile.TemporaryDirectory() as scratch,
    contextlib.redirect_stdout(io.StringIO()),
  ):
    builder.download_and_prepare(download_dir=scratch)


def check_source(source: Source, longest_side: int = 512) -> list[str]:
  """Reads a whole source as `write_dataset` would, but writes nothing.

  Args:
    source: the source to read.
    longest_side: see `write_dataset`.

  Returns:
    One line for each item that would be left out.
  """
  items = [item for listed in source.splits.values() for item in listed]
  stream = encoding.encode_all(source, items, longest_side) if items else ()
  results = tqdm(stream, total=len(items), unit=' images', mininterval=1)
  return source.problems + [r for r in results if isinstance(r, str)]
