"""Writes a prepared dataset: ArrayRecord files that TFDS reads.

Shards are written into DIR/unfinished-KEY, where an interrupted preparation
continues. DIR/entity_segmentation/VERSION/ appears once everything is there.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tqdm import tqdm

from bitseg_jax import palette
from bitseg_jax.data import transforms
from bitseg_jax.data.families import open_source
from bitseg_jax.data.outside import SourceError, named
from bitseg_jax.data.prepared import splits
from bitseg_jax.data.source import Item, Source, load_example

SHARD = 256  # items, the most that an interrupted preparation loses
MOST_SHARDS = 256  # of a split: a reader keeps every shard open
_MAX_IDS = 65_534
_LAYOUT = 3  # of unfinished folders; those of another are of no use
_ABOUT = {'dataset': '', 'longest_side': 512, 'options': {}}

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
  output: str,
  longest_side: int = 512,
  strict: bool = False,
  overwrite: bool = False,
  **options: Any,
) -> None:
  """Writes the dataset in `source` to `output`, unless it is there already.

  The arguments are the flags of `bitseg prepare`, and the options those of
  `families.open_source`. SourceError or OSError if nothing could be written.
  """
  about = {'dataset': dataset, 'longest_side': longest_side, 'options': options}
  if splits.dataset_path(output).exists() and not overwrite:
    held = splits.read_metadata(output)
    # A dataset prepared before there were options has none.
    found = {name: held.get(name, {}) for name in about}
    if found != about:
      said = ', '.join(f'{name} {value}' for name, value in found.items())
      raise SourceError(
        f'{output} already holds {said}; pass --overwrite or another --output'
      )
    print(f'{output} is already prepared (--overwrite to do it again)')
    print(splits.format_table(held))
    return
  opened = open_source(dataset, source, **options)
  write_dataset(opened, output, about, strict)
  print(splits.format_table(splits.read_metadata(output)))


def _fingerprint(source, about):
  """Digests the settings, the items, and size and time of their files."""
  digest = hashlib.sha256(json.dumps([_LAYOUT, about]).encode())
  for split, items in source.splits.items():
    for item in items:
      digest.update(ascii((split, item)).encode())
      for path in item.photo, *item.labels:
        if isinstance(path, Path) and os.path.exists(path):
          seen = path.stat()
          digest.update(f'{seen.st_size} {seen.st_mtime_ns}'.encode())
  return digest.hexdigest()[:16]


def write_dataset(
  source: Source,
  data_dir: str | Path,
  about: Mapping[str, Any] = _ABOUT,
  strict: bool = False,
) -> None:
  """Writes a source as a prepared dataset, and prints what is left out.

  An interrupted call is continued by another of the same arguments. `about` is
  stored. SourceError says why nothing was written.
  """
  unfinished = Path(data_dir) / f'unfinished-{_fingerprint(source, about)}'
  for left in Path(data_dir).glob('unfinished-*'):
    other = 'is of another source or other settings; it may be deleted'
    print(f'{left}: {"is continued" if left == unfinished else other}')
  unfinished.mkdir(parents=True, exist_ok=True)
  shards = _encode_shards(source, unfinished, about['longest_side'])
  alike: dict[str, list[str]] = {}  # notes that differ in numbers only
  for line in sorted(source.notes):
    kind = re.sub(r'[\d.e+-]+', '0', line.rpartition(': ')[2])
    alike.setdefault(kind, []).append(line)
  for first, *others in alike.values():
    print(first + (f' (and {len(others)} more alike)' if others else ''))
  problems = source.problems + [p for s in shards for p in s['problems']]
  if problems:
    print(f'{len(problems)} problems, left out:', file=sys.stderr)
    print(*problems, sep='\n', file=sys.stderr)
  shards = [shard for shard in shards if shard['entities']]
  if not shards or (strict and problems):
    why = 'there are problems, and --strict was given'
    if not shards:
      why = 'nothing is left'
      shutil.rmtree(unfinished)
    raise SourceError(f'{why}; nothing was written to {data_dir}')
  written = unfinished / splits.NAME
  shutil.rmtree(written, ignore_errors=True)
  written.mkdir()
  infos, counts = [], {}
  for split in dict.fromkeys(shard['split'] for shard in shards):
    own = [shard for shard in shards if shard['split'] == split]
    for i, shard in enumerate(own):
      name = f'{splits.NAME}-{split}.array_record-{i:05}-of-{len(own):05}'
      (unfinished / shard['file']).rename(written / name)
    of_split = {
      'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
      'numBytes': str(sum(shard['bytes'] for shard in own)),
      'shardLengths': [str(len(shard['entities'])) for shard in own],
    }
    infos.append({'name': split, **of_split})
    entities = [counted for shard in own for counted in shard['entities']]
    counts[split] = {
      'images': len(entities),
      'annotators_per_image': Counter(map(len, entities)),
      'entities_per_map': Counter(chain(*entities)),
    }
  info = {'name': splits.NAME, 'version': splits.VERSION, 'splits': infos}
  info |= {'fileFormat': 'array_record', 'moduleName': __name__}
  _FEATURES.save_config(written)
  (written / 'dataset_info.json').write_text(json.dumps(info))
  about = {**about, 'splits': counts}
  (written / 'metadata.json').write_text(json.dumps(about))
  final = splits.dataset_path(data_dir)
  final.parent.mkdir(exist_ok=True)
  if final.exists():
    final.rename(unfinished / 'replaced')
  written.rename(final)
  shutil.rmtree(unfinished)


def _encode_shards(source, folder, longest_side):
  """Encodes the shards that are not in the folder already.

  Each has `split`, `file`, `bytes`, the number of `entities` of each map of
  each record, and `problems`.
  """
  shards = []
  total = sum(map(len, source.splits.values()))

  def read(item):
    try:
      return encode(source, item, longest_side)
    except SourceError as error:  # its file's name may be no text
      return str(error).encode(errors='backslashreplace').decode()

  with tqdm(total=total, unit=' images', mininterval=1) as progress:
    for split, items in source.splits.items():
      length = max(SHARD, -(-len(items) // MOST_SHARDS))
      for start in range(0, len(items), length):
        part = items[start : start + length]
        path = folder / f'{split}-{start:09}'
        note = path.with_suffix('.json')  # there once the shard is whole
        try:
          shard = json.loads(note.read_bytes())
          is_whole = shard['bytes'] == path.stat().st_size
        except (OSError, ValueError):
          is_whole = False
        if is_whole:
          progress.update(len(part))
        else:
          shard = {'split': split, **_write_shard(path, read, part, progress)}
          partly = path.with_suffix('.partly')
          partly.write_text(json.dumps(shard))
          partly.replace(note)
        shards.append(shard)
  return shards


def _write_shard(path, read, items, progress):
  """Writes what `read` makes of each item, in order, on all cores."""
  cores = os.cpu_count() or 1
  options = grain.ReadOptions(num_threads=cores, prefetch_buffer_size=4 * cores)
  results = grain.MapDataset.source(items).map(read).to_iter_dataset(options)
  entities, problems = [], []
  try:
    with contextlib.closing(ArrayRecordWriter(str(path), 'group_size:1')) as f:
      for result in results:
        progress.update()
        if isinstance(result, str):
          problems.append(result)
        else:
          f.write(_FEATURES.serialize_example(result[0]))
          entities.append(result[1])
  except RuntimeError as error:
    # ArrayRecord raises this on a full disk. Any other error is a bug.
    if '() failed: ' not in str(error):
      raise
    raise SourceError(str(error).split(';')[0]) from error
  shard = {'file': path.name, 'bytes': path.stat().st_size}
  return {**shard, 'entities': entities, 'problems': problems}


def encode(
  source: Source, item: Item, longest_side: int
) -> tuple[dict[str, Any], list[int]]:
  """Reads one item; returns its record and the number of entities of each map.

  Raises SourceError if a file is at fault.
  """
  example = load_example(source, item)
  image, id_maps = example['image'], example['id_maps']
  is_plain = example['plain_jpeg']
  if longest_side and max(image.shape) > longest_side:
    size = transforms.fit_longest_side(*image.shape[:2], longest_side)
    image, is_plain = transforms.resize_image(image, size), False
    id_maps = [transforms.resize_ids(id_map, size) for id_map in id_maps]
  pngs, num_entities = [], []
  for i, id_map in enumerate(id_maps):
    ids, count = palette.compact_ids(id_map)
    if not 0 < count <= _MAX_IDS:
      raise SourceError(
        f'{item.label(i)}: an annotation with {count} ids; 1 to {_MAX_IDS} can '
        'be stored'
      )
    # Palette PNGs are not filtered, so they decode four times as fast.
    few = count < 256
    stored = Image.fromarray((ids + 1).astype(np.uint8 if few else np.uint16))
    pngs.append(_saved(stored.convert('P') if few else stored, 'PNG'))
    num_entities.append(count)
  if is_plain:
    jpeg = item.photo.read_bytes()
  else:
    # Subsampled colour would blur the borders between entities.
    options = {'quality': 95, 'subsampling': 0}
    with named(item.photo, 'no JPEG is so large', 'give a --longest_side'):
      jpeg = _saved(Image.fromarray(image), 'JPEG', **options)
  return {'name': item.name, 'image': jpeg, 'id_maps': pngs}, num_entities


def _saved(image, kind, **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()
