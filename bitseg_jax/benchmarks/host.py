"""Benchmarks on the host: input pipeline and metrics."""

import contextlib
import io
import os
import tempfile
import time
import timeit
from pathlib import Path

import numpy as np
from PIL import Image

from bitseg_jax import metrics, palette
from bitseg_jax.data.prepared import splits
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.data.source import Item, Source

Rows = list[tuple[str, float, str]]  # name, value, unit


def write_scenes(folder: str) -> None:
  """Prepares 64 records in a folder, all one drawn scene as a JPEG."""
  from bitseg_jax.data.prepared import write  # of the extra [train]

  scene, path = ProceduralScenes(1, 512, 24)[0], Path(folder, 'scene.jpg')
  Image.fromarray(scene['image']).save(path, quality=90)
  items = [Item(str(i), path, ('ids',)) for i in range(64)]
  source = Source({'train': items}, lambda item: scene['id_maps'], [], [])
  with contextlib.redirect_stderr(io.StringIO()):  # its progress
    write.write_dataset(source, folder)


def measure_input(side: int, data: str = '') -> Rows:
  """Benchmarks how fast examples are read by 0, 1, 2 and more processes.

  Args:
    side: side of the padded square, in pixels.
    data: folder of a prepared dataset to read; '' = make one.
  """
  from bitseg_jax.data import pipeline  # of the extra [train]

  codes, rows = palette.make_palette(64, 'similar'), []
  example = pipeline.TrainingExample(side, 64, codes)
  with tempfile.TemporaryDirectory() as folder:
    if not data:
      data = folder
      write_scenes(folder)
    records = splits.open_split(data, 'train', side)
    for workers in sorted({0, 1, 2, os.cpu_count() or 1}):
      drawn = pipeline.training_batches(
        [records], example, 32, 0, num_threads=1
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
  """Benchmarks ARI and IoU of one image with up to 30 entities."""
  true, pred = (scene['id_maps'][0] for scene in ProceduralScenes(2, side, 30))
  clock = time.process_time  # other processes take none of it
  timer = timeit.Timer(lambda: metrics.ari_and_iou(true, pred), timer=clock)
  took = 1e3 * float(np.median(timer.repeat(500, 1)))
  return [('ARI + IoU of an image', took, 'ms')]
