"""Segments many photos: resumes where it was stopped, passes what is bad."""

import collections
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bitseg_jax.app import files, known, photos
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.files import Outputs, Record
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data.images import read_photo
from bitseg_jax.data.outside import SourceError
from bitseg_jax.runs import weights
from bitseg_jax.runs.log import progress_bar, write_json

_WRITERS = 2  # photos written at once, while others are segmented


class _Task(NamedTuple):
  """A photo to be segmented: what is recorded of it so far, and its pixels."""

  name: str
  about: Record
  before: Record | None  # the same segmentation with other files
  image: np.ndarray
  given: dict[str, np.ndarray | None]  # 'known' and 'start'


def predict(
  segmenter: Segmenter,
  found: Sequence[photos.Photo],
  outputs: Outputs,
  options: AnswerOptions,
  checkpoint: str,
  overwrite: bool = False,
  whole: bool = True,
  given: dict[str, known.Given] | None = None,
) -> dict[str, Any]:
  """Segments photos and writes what files.KINDS lists, photo by photo.

  Passed over is a photo whose files are all there, made from the same file with
  the same options. What cannot be read is named on stderr and in summary.json.

  Args:
    segmenter, found: the model and the photos.
    outputs, options: which files are written, and how photos are segmented.
    checkpoint: where the model is from.
    overwrite: segment anew what is there.
    whole: whether to write the files of all photos, such as summary.json.
    given: files of what is 'known', and of what to 'start' from.

  Returns:
    What summary.json says. If whole, that is written even if this fails.

  Raises:
    OSError: the output cannot be written.
  """
  folder, began, entries = outputs.folder, time.perf_counter(), {}
  given = given or {}
  made_with = _made_with(segmenter, checkpoint, options, given)
  names = [photo.name for photo in found]
  folder.mkdir(parents=True, exist_ok=True)
  together = 1 if given else max(1, segmenter.batch_size // options.num_samples)

  def said(line):
    tqdm.write(f'note: {line}', file=sys.stderr)

  def note(name, entry):
    entries[name] = entry
    progress.update()

  def tasks() -> Iterator[_Task]:
    """Reads what is to be done, and notes all else."""
    for path, name in found:
      about = {'photo': os.path.abspath(path), 'made_with': made_with}
      about['label_format'] = outputs.label_format
      record, same = None, False
      try:
        record = files.read_record(folder, name)
        if path.is_file():
          status = path.stat()
          about |= {'bytes': status.st_size, 'modified': status.st_mtime}
          for kind, place in given.items():
            about[f'{kind}_digest'] = known.fingerprint(place, name)
          same = record is not None and about.items() <= record.items()
          if same and not overwrite and _is_there(outputs, record):
            note(name, _entry('there', record))
            continue
        image = read_photo(path, options.exif, options.page, said)
        size = image.shape[:2]
        ids = {k: known.read(g, name, size) for k, g in given.items()}
      except (SourceError, OSError) as error:
        reason = ' '.join(str(error).split())
        tqdm.write(f'skipped: {reason}', file=sys.stderr)
        failed = {'photo': about['photo'], 'status': 'failed', 'reason': reason}
        note(name, failed)
        if record is not None and not same:
          files.remove(folder, name, record)
        continue
      if not same:
        files.remove(folder, name, record)
      yield _Task(name, about, record if same else None, image, ids)

  def segment(group: list[_Task]):
    """Segments photos together; each is then written by another thread."""
    start = time.perf_counter()
    results = segmenter.segment_batch(
      [task.image for task in group],
      options,
      # Each photo of which something is given is a group of its own.
      **{kind: [ids] for kind, ids in group[0].given.items()},
    )
    seconds = (time.perf_counter() - start) / len(group)
    return [
      writers.submit(write, task, result, seconds)
      for task, result in zip(group, results, strict=True)
    ]

  def write(task, result, seconds):
    start = time.perf_counter()
    name, about, before, image, _ = task
    record = files.write(outputs, name, image, result, about, before)
    seconds = round(seconds + time.perf_counter() - start, 3)
    note(name, {**_entry('done', record), 'seconds': seconds})

  try:
    with (
      progress_bar(len(found), 'predict', 'photo') as progress,
      ThreadPoolExecutor(_WRITERS) as writers,
    ):
      todo = tasks()
      _overlapped(lambda: list(itertools.islice(todo, together)), segment)
  finally:
    entries = {name: entries[name] for name in names if name in entries}
    summary = {
      'finished': len(entries) == len(found),
      'seconds': round(time.perf_counter() - began, 1),
      'outputs': list(outputs.kinds),
      'made_with': made_with,
      'photos': list(entries.values()),
    }
    if whole:
      done = [n for n, entry in entries.items() if entry['status'] != 'failed']
      files.write_together(outputs, done)
      write_json(folder / 'summary.json', summary)
  return summary


def _overlapped(read, work):
  """Works on two groups at once, while the next is read and others written.

  So the devices sample for one while the other's answers are made. `read`
  returns the next group, an empty one after the last; `work` returns futures of
  what is being written.
  """
  reader, workers = ThreadPoolExecutor(1), ThreadPoolExecutor(2)
  running, writing = collections.deque(), collections.deque()

  def finish(most):
    while len(running) > most:
      writing.extend(running.popleft().result())
    while len(writing) > most * _WRITERS:  # no more answers are held in memory
      writing.popleft().result()

  try:
    ahead = reader.submit(read)
    while group := ahead.result():
      ahead = reader.submit(read)
      running.append(workers.submit(work, group))
      finish(most=2)
    finish(most=0)
  finally:
    # What is begun is written; nothing else is begun.
    reader.shutdown(cancel_futures=True)
    workers.shutdown(cancel_futures=True)


def _made_with(segmenter, checkpoint, options, given):
  """All that a photo's segmentation depends on beside the photo."""
  # The name of a pretrained model is no path, though a folder may share it.
  is_path = os.path.exists(checkpoint) and not weights.is_shipped(checkpoint)
  # What the run's config says and the same asked for are no different.
  sampler = segmenter.sampler_options(options)
  return {
    'checkpoint': os.path.abspath(checkpoint) if is_path else checkpoint,
    'step': segmenter.step,
    # A run may be trained anew, and pretrained weights be replaced.
    'digest': segmenter.digest,
    **dataclasses.asdict(options),
    'num_steps': sampler.num_steps,
    'guidance_weight': sampler.guidance_weight,
    # Whatever the strength, without a start it changes nothing.
    'strength': options.strength if 'start' in given else None,
    **{kind: os.path.abspath(g.place) for kind, g in given.items()},
  }


def _is_there(outputs, record):
  """Whether all files of a photo are there."""
  return all(
    kind in record['files']
    and all((outputs.folder / file).is_file() for file in record['files'][kind])
    for kind in outputs.kinds
  )


def _entry(status, record):
  """What summary.json says of a photo that is segmented."""
  return {
    'photo': record['photo'],
    'status': status,
    'width': record['width'],
    'height': record['height'],
    'num_segments': len(record['segments']),
  }
