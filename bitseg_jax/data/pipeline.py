"""Input pipeline (grain): reads records and makes batches on the host.

A source is anything with len() and [i] -> {'name': str, 'image': uint8
[h, w, 3], 'id_maps': sequence of int32 [H, W]}; the photo may be stored
smaller than its id maps. A training batch holds

  image  uint8 [B, S, S, 3]   padded with the mean colour
  codes  int16 [B, G, G]      G divides S; -1 where unlabelled or padding

Bits are made on the device, because codes take a tenth of their bytes.
"""

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from bitseg_jax import palette as palettes
from bitseg_jax.data import transforms


@dataclasses.dataclass(frozen=True)
class TrainingExample(grain.transforms.RandomMap):
  """Turns a record into a training example, with all randomness from grain."""

  image_size: int  # side S of the padded square in pixels
  num_codes: int
  palette: np.ndarray | None  # square int grid; None: random at each visit
  overflow: str = 'neighbour'  # see palette.assign_codes
  augment: str = 'full'  # one of transforms.AUGMENTATIONS
  crop_scale: tuple[float, float] = (1.0, 1.0)  # see transforms.random_box
  crop_aspect: float = 1.0
  code_size: int = 0  # side G of the codes, which divides S; 0: S

  def random_map(
    self, record: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """Draws a part of the photo, augments, pads, and assigns codes."""
    id_maps = record['id_maps']
    id_map = id_maps[rng.integers(len(id_maps))]
    box = transforms.random_box(rng, self.crop_scale, self.crop_aspect)
    height, width = np.subtract(box[2:], box[:2]) * id_map.shape
    size = transforms.fit_longest_side(height, width, self.image_size)
    image = transforms.resize_image(record['image'], size, box)
    id_map = transforms.resize_ids(id_map, size, box)
    image, id_map = transforms.augment(image, id_map, rng, self.augment)
    image, id_map = transforms.pad_to_square(image, id_map, self.image_size)
    id_map = transforms.every_nth(id_map, self.code_size)
    if self.palette is None:
      codes = palettes.assign_random_codes(
        id_map, self.num_codes, rng, self.overflow
      )
    else:
      codes = palettes.assign_codes(id_map, self.palette, self.overflow)
    return {'image': image, 'codes': codes.astype(np.int16)}


def training_batches(
  sources: Sequence[Sequence],
  example: TrainingExample,
  batch_size: int,
  seed: int,
  weights: Sequence[float] = (),
  num_threads: int = 4,
  rows: Sequence[int] | None = None,
  start: int = 0,
) -> grain.IterDataset:
  """Builds an endless stream of shuffled training batches.

  Every epoch has a new order and new draws. Batch k depends on the arguments
  and k alone, so any processes and readers give the same stream.

  Args:
    sources: random-access records, each shuffled and repeated on its own; none
      may be empty.
    example: record -> example.
    batch_size: examples in a batch over all processes, B.
    seed: of order and augmentation.
    weights: how often each source is drawn from; () = all alike.
    num_threads: reader threads.
    rows: which rows of each batch are this process's; None = all of them.
    start: number of the first batch.
  """
  for source in sources:
    if not len(source):
      raise ValueError(f'{source!r} is empty; there is nothing to train on')
  shuffled = [
    grain.MapDataset.source(source).seed(seed + i).shuffle().repeat()
    for i, source in enumerate(sources)
  ]
  records = shuffled[0]
  if len(shuffled) > 1:
    mixed = grain.MapDataset.mix(shuffled, weights or [1] * len(shuffled))
    records = mixed.seed(seed)
  rows = list(range(batch_size) if rows is None else rows)
  examples, count = records.random_map(example), len(rows)

  def row(index):
    batch, place = divmod(index, count)
    return examples[(start + batch) * batch_size + rows[place]]

  # As good as endless, so none is dropped.
  mine = grain.MapDataset.range((2**62 // batch_size - start) * count).map(row)
  options = grain.ReadOptions(num_threads, prefetch_buffer_size=4 * num_threads)
  return mine.batch(count, drop_remainder=True).to_iter_dataset(options)


def read_in_processes(
  batches: grain.IterDataset, num_workers: int
) -> grain.IterDataset:
  """Makes so many processes read the same batches; 0 leaves it to this one."""
  if not num_workers:
    return batches
  if not flags.FLAGS.is_parsed():  # grain reads flags, some programs do not
    flags.FLAGS.mark_as_parsed()
  options = grain.MultiprocessingOptions(num_workers=num_workers)
  return batches.mp_prefetch(options, _init_worker)


def _init_worker(index: int, count: int) -> None:
  """Ignores stop signals: the main process saves first and ends its workers."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)

  # If the main process is killed, the worker has to end by itself.
  def end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()
