"""Benchmarks on the host: input pipeline and metrics."""

import contextlib
import io
import os
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bitseg_jax import metrics, palette
from bitseg_jax.data import pipeline, transforms
from bitseg_jax.data.prepared import splits, write
from bitseg_jax.data.source import Item, Source

Rows = list[tuple[str, float, str]]  # name, value, unit


def milliseconds(function: Callable[[], Any], repeats: int = 500) -> float:
  """Returns the median CPU time of a call in ms, without other processes."""
  clock = time.process_time
  times = timeit.repeat(function, timer=clock, number=1, repeat=repeats)
  return 1e3 * float(np.median(times))


def make_source(folder: str, num_entities: int = 56) -> Source:
  """Makes a source of 256 items, all one noisy 1000x750 JPEG in `folder`.

  Its entities are the cells around random points.
  """
  rng, (y, x) = np.random.default_rng(0), np.mgrid[:750, :1000]
  ids = _cells(rng, 750, 1000, num_entities)
  photo = rng.integers(60, 196, (num_entities, 3))[ids]
  photo = photo + 20 * np.sin(x / 7 + y / 11)[..., None]
  photo = photo + np.clip(rng.normal(0, 6, photo.shape), -40, 40)
  path = Path(folder) / 'photo.jpg'
  Image.fromarray(photo.astype(np.uint8)).save(path, quality=90)
  items = [Item(str(i), path, ('ids',)) for i in range(256)]
  return Source({'train': items}, lambda item: [ids.astype(np.int32)], [], [])


def _cells(rng, height, width, count):
  """Returns for each pixel the index of the nearest of random points."""
  y, x = np.mgrid[:height, :width].astype(np.float32)
  points = rng.uniform(0, 1, (count, 2)) * (height, width)
  return np.argmin([(y - p) ** 2 + (x - q) ** 2 for p, q in points], axis=0)


def measure_input(side: int, data: str = '') -> Rows:
  """Benchmarks each input stage for one sample, and all with reader processes.

  Args:
    side: side of the padded square, in pixels.
    data: folder of a prepared dataset to read; '' = make one of 160 px.
  """
  codes = palette.make_palette(64, 'similar')
  example = pipeline.TrainingExample(side, 64, codes)
  rng = np.random.default_rng(0)
  with tempfile.TemporaryDirectory() as folder:
    source = make_source(folder)
    item = source.splits['train'][0]
    stored = {**write.encode(source, item, 0)[0], 'name': b''}
    decode = lambda: splits.decode(stored, side)
    image, ids = decode()['image'], decode()['id_maps'][0]
    size = transforms.fit_longest_side(*ids.shape, side)
    resize = lambda: (
      transforms.resize_image(image, size),
      transforms.resize_ids(ids, size),
    )
    small = resize()
    padded = transforms.pad_to_square(*small, side)[1]
    rows = [
      (name, milliseconds(stage), 'ms')
      for name, stage in {
        'decode photo and ids': decode,
        'resize': resize,
        'augment': lambda: transforms.augment(*small, rng, 'full'),
        'relabel + palette': lambda: palette.assign_codes(padded, codes),
        'all': lambda: example.random_map(decode(), rng),
      }.items()
    ]
    if not data:
      data = folder
      with contextlib.redirect_stderr(io.StringIO()):
        write.write_dataset(source, data, longest_side=160)
    prepared = splits.open_split(data, 'train', side)
    for workers in sorted({0, 1, 2, os.cpu_count() or 1}):
      drawn = pipeline.training_batches(
        [prepared], example, 32, 0, num_threads=1
      )
      stream = pipeline.read_in_processes(drawn, workers)
      with contextlib.closing(iter(stream)) as batches:
        for _ in range(10 + 10 * workers):  # warms up before timing
          next(batches)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < 5:
          count += len(next(batches)['image'])
        rate = count / (time.perf_counter() - began)
      rows.append((f'prepared records, {workers} workers', rate, 'samples/s'))
  return rows


def measure_metrics(side: int) -> Rows:
  """Benchmarks ARI and IoU of one image with 24 entities and 30 segments."""
  rng = np.random.default_rng(0)
  true, pred = (_cells(rng, side, side, count) for count in (24, 30))
  score = lambda: metrics.scores(true, pred)
  return [('ARI + IoU of an image', milliseconds(score), 'ms')]
