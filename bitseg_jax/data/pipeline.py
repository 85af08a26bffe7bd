"""Input pipeline (grain): reads records and makes batches on the host.

A source is anything with len() and [i] -> {'name': str, 'image': uint8
[h, w, 3], 'id_maps': sequence of int32 [H, W]}; the photo may be stored
smaller than its id maps. A training batch holds

  image  uint8 [B, S, S, 3]   padded with the mean colour
  codes  int16 [B, S, S]      -1 where unlabelled or padding

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
  """Turns a record into a training example, with all randomness from grain.

  Attributes:
    image_size: side S of the padded square in pixels.
    num_codes: number of codes.
    palette: square int grid of codes, or None for random codes at each visit.
    overflow: 'neighbour' or 'largest', see palette.assign_codes.
    augment: 'full', 'flip' or 'none', see transforms.augment.
    crop_scale: see transforms.random_box; (1, 1) turns it off.
    crop_aspect: see transforms.random_box; 1 turns it off.
  """

  image_size: int
  num_codes: int
  palette: np.ndarray | None
  overflow: str = 'neighbour'
  augment: str = 'full'
  crop_scale: tuple[float, float] = (1.0, 1.0)
  crop_aspect: float = 1.0

  def random_map(
    self, record: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """Draws an annotator and a box; resizes, augments, pads; assigns codes."""
    id_maps = record['id_maps']
    id_map = id_maps[rng.integers(len(id_maps))]
    box = transforms.random_box(rng, self.crop_scale, self.crop_aspect)
    size = transforms.fit_longest_side(
      (box[2] - box[0]) * id_map.shape[0],
      (box[3] - box[1]) * id_map.shape[1],
      self.image_size,
    )
    image = transforms.resize_image(record['image'], size, box)
    id_map = transforms.resize_ids(id_map, size, box)
    image, id_map = transforms.augment(image, id_map, rng, self.augment)
    image, id_map = transforms.pad_to_square(image, id_map, self.image_size)
    if self.palette is None:
      codes = palettes.random_codes(id_map, self.num_codes, rng, self.overflow)
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
  num_workers: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.IterDataset:
  """Reads sources as endless shuffled batches; each epoch has a new order.

  Global batch k does not depend on the number of processes: local batches are
  dealt out in turn, so process p of P gets the p-th of P parts of its rows. Nor
  does it depend on the number of workers, which take batches in turn as well;
  only the iterator's state is tied to that number.

  Args:
    sources: random-access records. Several are interleaved, each shuffled and
      repeated on its own.
    example: turns a record into an example; its draws differ in each epoch.
    batch_size: examples per batch over all processes.
    seed: seed of order and augmentation.
    weights: relative frequency of each source; () draws from all alike.
    num_threads: reader threads per process.
    num_workers: reader processes; 0 reads in this process.
    process_index, process_count: this process, and how many there are.

  Returns:
    An iterable whose iterator has get_state, set_state and close.

  Raises:
    ValueError: if a source is empty or process_count does not divide the batch.
  """
  for source in sources:
    if not len(source):
      raise ValueError(f'{source!r} is empty; there is nothing to train on')
  if batch_size % process_count:
    raise ValueError(
      f'batch_size is {batch_size}, which {process_count} processes do not '
      f'divide; use a multiple of {process_count}'
    )
  dataset = (
    _shuffled(sources, weights, seed)
    .random_map(example)
    # Drops nothing of an endless stream, whose length else overflows at size 1.
    .batch(batch_size // process_count, drop_remainder=True)
  )[process_index::process_count].to_iter_dataset(
    grain.ReadOptions(
      num_threads=num_threads, prefetch_buffer_size=4 * num_threads
    )
  )
  if num_workers:
    if not flags.FLAGS.is_parsed():  # grain reads flags, some programs do not
      flags.FLAGS.mark_as_parsed()
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers), _init_worker
    )
  return dataset


def _shuffled(sources, weights, seed):
  """Returns endless records of all sources, interleaved by their weights."""
  shuffled = [
    grain.MapDataset.source(source).seed(seed + i).shuffle().repeat()
    for i, source in enumerate(sources)
  ]
  if len(shuffled) == 1:
    return shuffled[0]
  weights = weights or [1] * len(shuffled)
  return grain.MapDataset.mix(shuffled, weights).seed(seed)


def _init_worker(index: int, count: int) -> None:
  """Ignores stop signals: the main process saves first and ends its workers."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)

  # If the main process is killed, the worker has to end by itself.
  def end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()


def evaluation_example(
  record: dict[str, Any], image_size: int
) -> dict[str, Any]:
  """Turns a record into an evaluation example: all annotators, nothing random.

  Args:
    record: a record of a source.
    image_size: side S of the padded square in pixels.

  Returns:
    {'name': str, 'image': uint8 [S, S, 3], 'size': int32 [2], 'id_maps': list
    of int32 [S, S]}. size is the height and width of the resized photo within
    the square; id maps are -1 where unlabelled or padding.
  """
  size = transforms.fit_longest_side(*record['id_maps'][0].shape, image_size)
  image = transforms.resize_image(record['image'], size)
  padded = [
    transforms.pad_to_square(
      image, transforms.resize_ids(id_map, size), image_size
    )
    for id_map in record['id_maps']
  ]
  return {
    'name': record['name'],
    'image': padded[0][0],
    'size': np.array(size, np.int32),
    'id_maps': [id_map for _, id_map in padded],
  }
