"""What a dataset of ten million records costs a process that trains on it.

python tests/campaigns/scale.py [--records=10000000] [--batches=500]

Writes one real shard of as many records as the builder would put into each,
gives it the names of all shards, and reads random batches from all of them.
"""

import argparse
import json
import os
import pathlib
import resource
import tempfile
import time

import numpy as np
from PIL import Image

from bitseg_jax import palette
from bitseg_jax.data import pipeline
from bitseg_jax.data.families import open_source
from bitseg_jax.data.prepared import splits, write

SIDE, SIZE = 64, 30_000  # pixels stored here; bytes of a record at 256 px


def write_folder(folder: pathlib.Path, count: int) -> None:
  """A folder of one photo with ids, under many names."""
  rng = np.random.default_rng(0)
  tiles = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
  ids = rng.integers(1, 9, (8, 8)).astype(np.uint8)
  nearest = Image.Resampling.NEAREST
  for kind, pixels, suffix in ('images', tiles, 'jpg'), ('labels', ids, 'png'):
    (folder / kind).mkdir(parents=True)
    first = folder / f'{kind}/000000.{suffix}'
    Image.fromarray(pixels).resize((SIDE, SIDE), nearest).save(first)
    for i in range(1, count):
      os.link(first, folder / f'{kind}/{i:06d}.{suffix}')
  names = [f'{i:06d}' for i in range(count)]
  (folder / 'train.txt').write_text('\n'.join(names))


def repeat_shard(data_dir: pathlib.Path, shards: int, held: int) -> None:
  """Gives the only shard the names of so many."""
  folder = splits.dataset_path(data_dir)
  (shard,) = folder.glob('*train.array_record*')
  info = json.loads((folder / 'dataset_info.json').read_text())
  (split,) = info['splits']
  split['shardLengths'] = [str(held)] * shards
  split['numBytes'] = str(shard.stat().st_size * shards)
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  whole = shard.rename(folder / 'shard')
  for i in range(shards):
    name = shard.name.replace('00000-of-00001', f'{i:05d}-of-{shards:05d}')
    os.link(whole, folder / name)
  whole.unlink()


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--records', type=int, default=10_000_000)
  parser.add_argument('--batches', type=int, default=500)
  asked = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    held = max(write.SHARD, -(-asked.records // write.MOST_SHARDS))
    shards = -(-asked.records // held)
    write_folder(folder / 'in', held)
    write.SHARD = held
    source = open_source('folder', str(folder / 'in'))
    write.write_dataset(source, folder / 'out')
    repeat_shard(folder / 'out', shards, held)
    began = time.perf_counter()
    reader = splits.open_split(folder / 'out', 'train', SIDE)
    opened = time.perf_counter() - began
    example = pipeline.TrainingExample(
      SIDE, 16, palette.make_palette(16, 'similar')
    )
    batches = iter(pipeline.training_batches([reader], example, 32, seed=0))
    next(batches)
    first = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(asked.batches):
      next(batches)
    rate = 32 * asked.batches / (time.perf_counter() - began)
    files = len(os.listdir('/proc/self/fd'))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    batches.close()
  print(
    f'records                         {len(reader):,}\n'
    f'shards                          {shards:,}\n'
    f'seconds to open it              {opened:.2f}\n'
    f'seconds to the first batch      {first:.2f}\n'
    f'examples a second               {rate:,.0f}\n'
    f'open files                      {files:,}\n'
    f'memory at most, MiB             {memory:,.0f}'
  )


if __name__ == '__main__':
  main()
