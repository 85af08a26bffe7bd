"""Writes a prepared dataset: ArrayRecord files that TFDS reads.

Records are written shard by shard into DIR/unfinished-KEY, so an interrupted
preparation continues at the shard it was in, and several jobs can share the
shards. DIR/entity_segmentation/VERSION/ appears once everything is there.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import grain
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from bitseg_jax.data.families import open_source
from bitseg_jax.data.outside import SourceError
from bitseg_jax.data.prepared import record, splits
from bitseg_jax.data.source import Item, Source

SHARD = 256  # items, the most that an interrupted preparation loses
MOST_SHARDS = 256  # of a split: a reader keeps every shard open
_LAYOUT = 2  # of unfinished folders; those of another are of no use

# id_maps are bytes, because TFDS cannot decode 16-bit PNG without OpenCV.
_FEATURES = tfds.features.FeaturesDict(
  {
    'name': tfds.features.Text(),
    'image': tfds.features.Image(encoding_format='jpeg'),
    'id_maps': tfds.features.Sequence(
      tfds.features.Text(doc='16-bit PNG: compact id + 1, 0 = ignored')
    ),
  }
)


def prepare(
  dataset: str,
  source: str,
  output: str | None = None,
  longest_side: int = 512,
  strict: bool = False,
  overwrite: bool = False,
  part: tuple[int, int] | None = None,
  **options: Any,
) -> int:
  """Writes the dataset in `source` to `output`, unless it is there already.

  Args:
    dataset: a name in `FAMILIES`.
    source: directory that holds the dataset as it was downloaded.
    output: directory to write to; None only reads the source and prints its
      problems.
    longest_side: larger photos shrink to it, in pixels; 0 keeps their size.
    strict: write nothing if any item has a problem; what is encoded stays.
    overwrite: replace the dataset in `output` once the new one is whole.
    part: (index, count): only encode every count-th shard from this one on; a
      call without, which writes the dataset, finds what the parts have done.
    **options: see `families.open_source`.

  Returns:
    The exit code: 0 if `output` holds the dataset, or without `output` if the
    source has no problem; else 1.

  Raises:
    SourceError, OSError: if nothing could be written; the line says why.
  """
  if output:
    splits.check_no_links(output)
    if splits.dataset_path(output).exists() and not overwrite:
      _keep(output, (dataset, longest_side, options))
      return 0
  opened = open_source(dataset, source, **options)
  _print_notes(opened)
  if not output:
    with tqdm(unit=' images', mininterval=1) as progress:
      progress.total = sum(map(len, opened.splits.values()))
      for items in opened.splits.values():
        for result in _encode(opened, items, longest_side):
          progress.update()
          if isinstance(result, str):
            opened.problems.append(result)
    _print_notes(opened)
    _print_problems(opened.problems)
    number = len(opened.problems)
    print(f'{progress.total} items read, {number} problems')
    return 1 if number else 0
  key = fingerprint(source, output, dataset, longest_side, options)
  for left in Path(output).glob(f'{splits.UNFINISHED}*'):
    if left.name == f'{splits.UNFINISHED}{key}':
      print(f'continuing the interrupted run in {left}')
    else:
      print(
        f'{left} is of an interrupted run with other settings or other files; '
        'it may be deleted'
      )
  if part:
    with _disk_errors():
      done = _encode_shards(opened, output, longest_side, key, part)
    number = sum(about['items'] for _, _, about in done)
    bad = sum(len(about['problems']) for _, _, about in done)
    print(
      f'part {part[0]} of {part[1]} is done: {number} items, of which {bad} '
      'will be left out; the same command without --shard writes the dataset '
      'once all parts are done'
    )
    return 0
  options = {'options': options, 'dataset': dataset}
  write_dataset(opened, output, longest_side, strict, key, options)
  print(splits.format_table(splits.read_metadata(output)))
  return 0


def write_dataset(
  source: Source,
  data_dir: str | Path,
  longest_side: int = 512,
  strict: bool = False,
  key: str = '',
  about: dict[str, Any] | None = None,
) -> None:
  """Writes a source as a prepared dataset, and prints what is left out.

  A dataset that is there already stays until the new one is whole.

  Args:
    source: the source to write.
    data_dir: directory that will hold the dataset.
    longest_side: larger photos shrink to it, in pixels; 0 keeps their size.
    strict: write nothing if any item has a problem; what is encoded stays.
    key: name of this preparation, see `fingerprint`; a call continues an
      interrupted one of the same key, and '' starts anew.
    about: stored with the data: `dataset`, its name, and `options`, how the
      source was opened.

  Raises:
    SourceError: nothing was written; the line says why.
  """
  unfinished = Path(data_dir) / f'{splits.UNFINISHED}{key}'
  if not key:
    shutil.rmtree(unfinished, ignore_errors=True)
  with _disk_errors():
    shards = _encode_shards(source, data_dir, longest_side, key)
  problems = [line for _, _, shard in shards for line in shard['problems']]
  _print_notes(source)
  _print_problems(source.problems + problems)
  whole = [shard for shard in shards if shard[2]['entities']]
  if not whole or (strict and (problems or source.problems)):
    why = (
      'there are problems, and --strict was given'
      if whole
      else ('nothing is left')
    )
    if not whole:
      shutil.rmtree(unfinished)
    raise SourceError(f'{why}; nothing was written to {data_dir}')
  final = splits.dataset_path(data_dir)
  written = splits.dataset_path(unfinished)
  shutil.rmtree(written, ignore_errors=True)
  written.mkdir(parents=True)
  infos, counts = [], {}
  for split in source.splits:
    own = [(path, shard) for name, path, shard in whole if name == split]
    if not own:
      continue
    for i, (path, _) in enumerate(own):
      name = f'{splits.NAME}-{split}.array_record-{i:05}-of-{len(own):05}'
      path.rename(written / name)
    infos.append(
      {
        'name': split,
        'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
        'numBytes': str(sum(shard['bytes'] for _, shard in own)),
        'shardLengths': [str(len(shard['entities'])) for _, shard in own],
      }
    )
    entities = [record for _, shard in own for record in shard['entities']]
    annotators, maps = Counter(map(len, entities)), Counter(chain(*entities))
    counts[split] = {
      'images': len(entities),
      'annotators_per_image': dict(sorted(annotators.items())),
      'entities_per_map': dict(sorted(maps.items())),
    }
  _FEATURES.save_config(written)
  info = {
    'name': splits.NAME,
    'version': splits.VERSION,
    'fileFormat': 'array_record',
    'moduleName': __name__,
    'splits': infos,
  }
  about = {'dataset': '', 'options': {}, **(about or {})}
  metadata = {**about, 'longest_side': longest_side, 'splits': counts}
  for name, content in ('dataset_info', info), ('metadata', metadata):
    (written / f'{name}.json').write_text(json.dumps(content))
  final.parent.mkdir(exist_ok=True)
  if final.exists():
    final.rename(unfinished / 'replaced')
  written.rename(final)
  shutil.rmtree(unfinished)


def fingerprint(
  source_dir: str | Path, output: str | Path, *settings: Any
) -> str:
  """Digests a dataset's files and the settings of its preparation.

  Args:
    source_dir: directory whose files count, by path, size and modification
      time.
    output: directory whose files do not, though it may lie in the source.
    *settings: plain values that JSON can hold.

  Returns:
    16 hexadecimal digits.
  """
  settings = json.dumps([_LAYOUT, *settings], sort_keys=True)
  digest = hashlib.sha256(settings.encode())
  walked = {os.path.realpath(output)}
  for folder, subfolders, names in os.walk(source_dir, followlinks=True):
    if os.path.realpath(folder) in walked:  # links may form a cycle
      subfolders.clear()
      continue
    walked.add(os.path.realpath(folder))
    subfolders.sort()
    for name in sorted(names):
      path = os.path.join(folder, name)
      if os.path.isfile(path):
        seen = os.stat(path)
        about = f'\0{seen.st_size}\0{seen.st_mtime_ns}\n'
        digest.update(os.fsencode(path) + about.encode())
  return digest.hexdigest()[:16]


def _encode(
  source: Source, items: list[Item], longest_side: int
) -> Iterator[Any]:
  """Yields the result of `record.encode` for each item, in order."""
  cores = os.cpu_count() or 1
  encode = partial(record.encode, source, longest_side=longest_side)
  return iter(
    grain.MapDataset.source(items)
    .map(encode)
    .to_iter_dataset(
      grain.ReadOptions(num_threads=cores, prefetch_buffer_size=4 * cores)
    )
  )


def _encode_shards(
  source: Source,
  data_dir: str | Path,
  longest_side: int,
  key: str,
  part: tuple[int, int] = (0, 1),
) -> list[tuple[str, Path, dict[str, Any]]]:
  """Encodes the shards of a part, and returns (split, file, about) of each."""
  folder = Path(data_dir) / f'{splits.UNFINISHED}{key}'
  folder.mkdir(parents=True, exist_ok=True)
  tasks = []
  for split, items in source.splits.items():
    length = max(SHARD, -(-len(items) // MOST_SHARDS))
    for start in range(0, len(items), length):
      path = folder / f'{split}-{start:09}'
      tasks.append((split, path, items[start : start + length]))
  tasks, done = tasks[part[0] :: part[1]], []
  with tqdm(unit=' images', mininterval=1) as progress:
    progress.total = sum(len(items) for _, _, items in tasks)
    for split, path, items in tasks:
      about = _read_about(path, len(items))
      if about:
        progress.update(len(items))
      else:
        about = _encode_shard(source, items, longest_side, path, progress)
      done.append((split, path, about))
  return done


def _read_about(path, num_items):
  """What is noted of a shard; None unless it is whole."""
  try:
    about = json.loads(path.with_suffix('.json').read_bytes())
    if about['items'] == num_items and about['bytes'] == path.stat().st_size:
      return about
  except (OSError, ValueError, TypeError, KeyError):
    pass
  return None


def _encode_shard(source, items, longest_side, path, progress):
  """Writes a shard and, once it is whole, what there is to note of it."""
  about = {'items': len(items), 'entities': [], 'problems': []}
  writer = ArrayRecordWriter(str(path), 'group_size:1')
  try:
    for result in _encode(source, items, longest_side):
      progress.update()
      if isinstance(result, str):
        about['problems'].append(result)
        continue
      example, num_entities = result
      writer.write(_FEATURES.serialize_example(example))
      about['entities'].append(num_entities)
  finally:
    writer.close()
  about['bytes'] = path.stat().st_size
  partly = path.with_suffix('.partly')
  partly.write_text(json.dumps(about))
  partly.replace(path.with_suffix('.json'))
  return about


@contextlib.contextmanager
def _disk_errors():
  """Names a full disk, of which ArrayRecord tells by a RuntimeError."""
  try:
    yield
  except RuntimeError as error:
    if '() failed: ' not in str(error):  # any other is a bug
      raise
    raise SourceError(str(error).split(';')[0]) from error


def _print_notes(source: Source) -> None:
  """Prints the notes and forgets them; of those that differ in numbers one."""
  alike: dict[str, list[str]] = {}
  for line in sorted(source.notes):
    kind = re.sub(r'[\d.e+-]+', '0', line.rpartition(': ')[2])
    alike.setdefault(kind, []).append(line)
  for first, *others in alike.values():
    print(first + (f' (and {len(others)} more alike)' if others else ''))
  source.notes.clear()


def _print_problems(problems: Sequence[str]) -> None:
  if problems:
    print(f'{len(problems)} problems, left out:', file=sys.stderr)
    print(*problems, sep='\n', file=sys.stderr)


def _keep(output: str, wanted: tuple) -> None:
  held = splits.read_metadata(output)
  # a dataset prepared before there were options has none
  found = held['dataset'], held['longest_side'], held.get('options', {})
  if found != wanted:
    extra = ''.join(f', {name} {value}' for name, value in found[2].items())
    raise SourceError(
      f'{output} already holds {found[0]} with longest side {found[1]}{extra}; '
      'pass --overwrite or another --output'
    )
  print(f'{output} is already prepared (--overwrite to do it again)')
  print(splits.format_table(held))
