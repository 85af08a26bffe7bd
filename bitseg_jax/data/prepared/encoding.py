"""Encodes the items of a source as records, on all cores and block by block.

Each finished block is written to a file at once, so that an interrupted
preparation can continue. Decoding large photos takes most of the time.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grain
import msgpack

from bitseg_jax.data.prepared import record
from bitseg_jax.data.source import Item, Source

BLOCK = 256  # items, the most that an interrupted preparation loses


def encode_all(
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


def encode_blocks(
  source: Source,
  items: list[Item],
  longest_side: int,
  folder: Path,
  advance: Callable[[int], Any],
) -> Iterator[Any]:
  """Encodes items like `encode_all`, but reads finished blocks from `folder`.

  Args:
    source: the source of the items.
    items: the items to encode.
    longest_side: see `record.encode`.
    folder: holds the blocks of exactly these items; created if missing.
    advance: called with the number of items that were just encoded or read.

  Yields:
    The result of `record.encode` for each item, in order.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for start in range(0, len(items), BLOCK):
    block = items[start : start + BLOCK]
    yield from _block(source, block, longest_side, folder, start, advance)


def encode_part(
  source: Source,
  longest_side: int,
  folder: Path,
  part: tuple[int, int],
  advance: Callable[[int], Any],
) -> tuple[int, int]:
  """Encodes the blocks of one part, where `encode_blocks` finds them later.

  Args:
    source, longest_side, advance: see `encode_blocks`.
    folder: holds the folders of all splits.
    part: (index, count): of the blocks of all splits every count-th, from that
      of the index on.

  Returns:
    How many items the part has, and how many of them would be left out.
  """
  index, count = part
  blocks = [
    (split, start)
    for split, items in source.splits.items()
    for start in range(0, len(items), BLOCK)
  ]
  done = left_out = 0
  for split, start in blocks[index::count]:
    (folder / split).mkdir(parents=True, exist_ok=True)
    block = source.splits[split][start : start + BLOCK]
    where = folder / split, start
    results = _block(source, block, longest_side, *where, advance)
    done += len(results)
    left_out += sum(isinstance(result, str) for result in results)
  return done, left_out


def _block(source, items, longest_side, folder, start, advance):
  """The results of one block, from its file if that is there."""
  path = folder / f'{start:09d}.msgpack'
  results = _read_block(path)
  if results is not None and len(results) == len(items):
    advance(len(results))
    return results
  results = []
  for result in encode_all(source, items, longest_side):
    results.append(result)
    advance(1)
  partly = path.with_suffix('.partly')
  partly.write_bytes(msgpack.packb(results))
  os.replace(partly, path)  # so that only whole blocks have this name
  return results


def _read_block(path):
  """What a block's file holds; None without one, or if a crash spoilt it."""
  try:
    results = msgpack.unpackb(path.read_bytes())
  except (FileNotFoundError, ValueError):
    return None
  return results if isinstance(results, list) else None


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
  digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
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
