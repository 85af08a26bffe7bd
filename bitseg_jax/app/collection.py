"""Segments many photos: goes on where it was stopped, and past what is bad."""

import collections
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bitseg_jax import interrupts
from bitseg_jax.app import files, known_files, photos, records
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data.outside import SourceError
from bitseg_jax.runs import weights
from bitseg_jax.runs.log import (
  check_no_links,
  progress_bar,
  remove_leftovers,
  write_json,
)


def predict(
  segmenter: Segmenter,
  found: Sequence[photos.Photo],
  output: str | Path,
  kinds: Sequence[str],
  options: AnswerOptions,
  checkpoint: str,
  overwrite: bool = False,
  whole: bool = True,
  steering: dict[str, known_files.Given] | None = None,
) -> dict[str, Any]:
  """Segments photos and writes what files.py lists, photo by photo.

  Passed over is a photo whose files are all there, made from the same file with
  the same settings. What cannot be read is named on stderr and in summary.json.

  Args:
    segmenter: the model.
    found: the photos.
    output: directory to write to.
    kinds: some of records.KINDS.
    options: how photos are segmented.
    checkpoint: where the model is from.
    overwrite: segment anew what is there.
    whole: whether to write the files of all photos, such as summary.json.
    steering: files of what is 'known', and of what to 'start' from.

  Returns:
    What summary.json says. If whole, that is written however this ends.

  Raises:
    OSError: the output cannot be written.
  """
  output, began, entries = Path(output), time.perf_counter(), {}
  steering = steering or {}
  made_with = _made_with(segmenter, checkpoint, options, steering)
  together = 1 if steering else segmenter.batch_size // options.num_samples
  _open_output(output, [photo.name for photo in found])
  try:
    with progress_bar(len(found), 'predict', 'photo') as progress:
      noted = entries, progress
      todo = _todo(found, output, kinds, made_with, overwrite, steering, *noted)
      groups = iter(lambda: list(itertools.islice(todo, max(1, together))), [])
      how = output, kinds, options, *noted
      _overlapped(groups, lambda group: _segment(segmenter, group, *how))
  finally:
    entries = {p.name: entries[p.name] for p in found if p.name in entries}
    summary = {
      'finished': len(entries) == len(found),
      'seconds': round(time.perf_counter() - began, 1),
      'outputs': list(kinds),
      'made_with': made_with,
      'photos': list(entries.values()),
    }
    if whole:
      _write_collections(output, kinds, entries)
      write_json(output / 'summary.json', summary)
  return summary


def how_to_look(kinds: Sequence[str]) -> str:
  """A line for those who open the labels in a picture viewer; '' of none."""
  if 'labels' not in kinds:
    return ''
  pictures = [k for k in ('overlay', 'contours', 'samples') if k in kinds]
  where = (
    f'look at *_{pictures[0]}.png instead'
    if pictures
    else 'for a picture to look at, add overlay to --outputs'
  )
  return (
    '*_labels.png looks black in a picture viewer, for its pixel values are '
    f'segment ids; {where}'
  )


@interrupts.raised()  # the main thread only waits for those that call JAX
def _overlapped(groups, work):
  """Works on two groups at once, while the next is read.

  So the devices sample for one while the other's results are made and written.
  """
  reader, workers = ThreadPoolExecutor(1), ThreadPoolExecutor(2)
  running = collections.deque()
  try:
    ahead = reader.submit(next, groups, None)
    while group := ahead.result():
      ahead = reader.submit(next, groups, None)
      running.append(workers.submit(work, group))
      if len(running) > 2:
        running.popleft().result()
    for done in running:
      done.result()
  finally:
    # What is begun is written; nothing else is begun.
    reader.shutdown(cancel_futures=True)
    workers.shutdown(cancel_futures=True)


def _segment(segmenter, group, output, kinds, options, entries, progress):
  """Segments a group of photos together, writes and notes them."""
  start = time.perf_counter()
  # Each steered photo is a group of its own.
  steered = {k: [ids] for k, ids in group[0][3].items()}
  results = segmenter.segment_batch(
    [image for _, _, image, _ in group], options, **steered
  )
  for (name, about, image, _), result in zip(group, results, strict=True):
    files.write(output, name, image, result, kinds, about)
    entries[name] = _entry('done', records.read(output, name))
    progress.update()
  seconds = (time.perf_counter() - start) / len(group)
  for name, *_ in group:
    entries[name]['seconds'] = round(seconds, 3)


def _open_output(output, names):
  check_no_links(output, [*names, *(f'panoptic/{name}' for name in names)])
  output.mkdir(parents=True, exist_ok=True)
  remove_leftovers(output)


def _made_with(segmenter, checkpoint, options, steering):
  """All that a photo's segmentation depends on beside the photo."""
  # What the run's config says and the same asked for are no different.
  sampler = segmenter.sampler_settings(
    options.num_steps, options.guidance_weight
  )
  # The name of a pretrained model is no path, though a folder may share it.
  is_path = os.path.exists(checkpoint) and not weights.is_shipped(checkpoint)
  return {
    'checkpoint': os.path.abspath(checkpoint) if is_path else checkpoint,
    'step': segmenter.step,
    # A run may be trained anew, and pretrained weights be replaced.
    'digest': segmenter.digest,
    **dataclasses.asdict(options),
    'num_steps': sampler['num_steps'],
    'guidance_weight': sampler['guidance_weight'],
    # Whatever the strength, without a start it changes nothing.
    'strength': options.strength if 'start' in steering else None,
    **{k: os.path.abspath(g.place) for k, g in steering.items()},
  }


def _todo(
  found, output, kinds, made_with, overwrite, steering, entries, progress
) -> Iterator[tuple[str, dict[str, Any], np.ndarray, dict[str, np.ndarray]]]:
  """(name, its record so far, pixels, id maps given) of what is to be done."""
  for path, name in found:
    about = {'photo': os.path.abspath(path), 'made_with': made_with}
    record, same = None, False
    try:
      record = records.read(output, name)
      if path.is_file():
        status = path.stat()
        about.update(bytes=status.st_size, modified=status.st_mtime)
        if steering:
          about['steered_by'] = {
            k: known_files.fingerprint(g, name) for k, g in steering.items()
          }
        same = _is_of(record, about)
        if same and not overwrite and _is_there(output, name, kinds, record):
          entries[name] = _entry('there', record)
          progress.update()
          continue
      image = photos.read(path)
      size = image.shape[:2]
      ids = {k: known_files.read(g, name, size) for k, g in steering.items()}
    except (SourceError, OSError) as error:
      reason = ' '.join(str(error).split())
      tqdm.write(f'skipped: {reason}', file=sys.stderr)
      entries[name] = {
        'photo': about['photo'],
        'status': 'failed',
        'reason': reason,
      }
      progress.update()
      if record is not None and not same:
        records.remove(output, name, record)
      continue
    if not same:
      records.remove(output, name, record)
    yield name, about, image, ids


def _is_of(record, about):
  """Whether a photo was segmented just so before."""
  return record is not None and all(
    record.get(k) == v for k, v in about.items()
  )


def _is_there(output, name, kinds, record):
  """Whether all files of a photo are there."""
  wanted = records.file_names(name, kinds, record['made_with']['num_samples'])
  return all((output / file).is_file() for file in wanted) and (
    'rle' not in kinds or all('segmentation' in s for s in record['segments'])
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


def _write_collections(output, kinds, entries):
  names = [name for name, e in entries.items() if e['status'] != 'failed']
  if 'panoptic' in kinds:
    files.write_panoptic(output, names)
  if 'rle' in kinds:
    files.write_rle(output, names)
  if 'sheet' in kinds:
    files.write_sheets(output, names)
