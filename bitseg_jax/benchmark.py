"""Measures how fast the parts are: a table, and JSON with --output.

python -m bitseg_jax.benchmark --what=input [--data=DIR] [--output=FILE.json]
"""

import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from PIL import Image

from bitseg_jax import palette
from bitseg_jax.data import builder, pipeline, record, transforms
from bitseg_jax.data.source import Item, Source
from bitseg_jax.writers import write_json

Rows = list[tuple[str, float, str]]  # name, value, unit


def milliseconds(function, repeats: int = 50, calls: int = 10) -> float:
  """Median over repeats of the mean CPU time of some calls."""
  times = []
  for _ in range(repeats):
    began = time.process_time()  # what else runs here does not count
    for _ in range(calls):
      function()
    times.append((time.process_time() - began) / calls)
  return 1e3 * float(np.median(times))


def make_source(folder: str, num_entities: int = 56) -> Source:
  """A noisy 1000x750 JPEG, cells around random points, as many records."""
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:750, :1000].astype(np.float32)
  points = rng.uniform(0, 1, (num_entities, 2)) * (750, 1000)
  ids = np.argmin([(y - p) ** 2 + (x - q) ** 2 for p, q in points], axis=0)
  photo = rng.integers(60, 196, (num_entities, 3))[ids]
  photo = photo + 20 * np.sin(x / 7 + y / 11)[..., None]
  photo = photo + np.clip(rng.normal(0, 6, photo.shape), -40, 40)
  path = Path(folder) / 'photo.jpg'
  Image.fromarray(photo.astype(np.uint8)).save(path, quality=90)
  items = [Item(str(i), path, ('ids',)) for i in range(256)]
  return Source({'train': items}, lambda item: [ids.astype(np.int32)], [], [])


def measure_input(data: str, side: int) -> Rows:
  """Times the stages of one sample, and all of them with reader processes."""
  codes = palette.make_palette(64, 'similar')
  example = pipeline.TrainingExample(side, 64, codes)
  rng = np.random.default_rng(0)
  with tempfile.TemporaryDirectory() as folder:
    source = make_source(folder)
    item = source.splits['train'][0]
    stored = {**record.encode(source, item, 0)[0], 'name': b''}
    decode = lambda: record.decode(stored, side)
    image, id_maps = decode()['image'], decode()['id_maps']
    ids = id_maps[0]
    size = transforms.fit_longest_side(*ids.shape, side)
    resize = lambda: (
      transforms.resize_image(image, size),
      transforms.resize_ids(ids, size),
    )
    small = resize()
    padded = transforms.pad_to_square(*small, side)[1]
    plain = lambda: Image.open(item.photo).convert('RGB').resize(size[::-1])
    stages = {
      'plain Pillow: decode, resize': plain,
      'decode photo': decode,
      'decode ids': lambda: id_maps[0],
      'resize': resize,
      'augment': lambda: transforms.augment(*small, rng, 'full'),
      'relabel + palette': lambda: palette.assign_codes(padded, codes),
      'all': lambda: example.random_map(decode(), rng),
    }
    rows = [(name, milliseconds(f), 'ms') for name, f in stages.items()]
    if not data:
      data = folder
      with contextlib.redirect_stderr(io.StringIO()):
        builder.write_dataset(source, data, 'benchmark', longest_side=160)
    prepared = builder.open_split(data, 'train', side)
    rate = samples_per_second(prepared, example, 0, time.process_time)
    rows.append(('prepared records, of CPU time', rate, 'samples/s'))
    for workers in sorted({0, 1, 2, os.cpu_count() or 1}):
      rate = samples_per_second(prepared, example, workers)
      rows.append((f'prepared records, {workers} workers', rate, 'samples/s'))
  return rows


def samples_per_second(source, example, workers, clock=time.perf_counter):
  """Rate of the training batches once started, one thread a process."""
  stream = pipeline.training_batches(
    [source], example, 32, 0, num_threads=1, num_workers=workers
  )
  with contextlib.closing(iter(stream)) as batches:
    for _ in range(10 + 10 * workers):  # read before the clock starts
      next(batches)
    began, count = clock(), 0
    while clock() - began < 5:
      count += len(next(batches)['image'])
    return count / (clock() - began)


WHAT = {'input': measure_input}


def run(what: str, data: str, image_size: int, output: str) -> None:
  """Measures, prints the table, writes the JSON."""
  if output and not Path(output).parent.is_dir():
    raise FileNotFoundError(f'{output}: its directory does not exist')
  rows = WHAT[what](data, image_size)
  for name, value, unit in rows:
    print(f'{name:<32}{value:>10.4g} {unit}')
  if output:
    asked = {'what': what, 'data': data, 'image_size': image_size}
    write_json(Path(output), {**asked, 'rows': rows})


def main(_) -> None:
  """Does what the flags say; user errors end in one line and exit code 1."""
  logging.set_verbosity(logging.WARNING)  # TFDS tells of every step
  f = flags.FLAGS
  try:
    run(f.what, f.data, f.image_size, f.output)
  except (OSError, ValueError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.DEFINE_enum('what', 'input', sorted(WHAT), 'What to measure.')
  flags.DEFINE_string('data', '', 'Prepared dataset; one is made without it.')
  flags.DEFINE_integer('image_size', 128, 'Longest side in pixels.', 8)
  flags.DEFINE_string('output', '', 'JSON file to write as well.')
  app.run(main)
