"""Segments many photos: resumes where it was stopped, passes what is bad."""

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from bitseg_jax.app import files, known, photos
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.files import Outputs
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data.images import read_photo
from bitseg_jax.data.outside import SourceError
from bitseg_jax.runs import weights
from bitseg_jax.runs.log import progress_bar, write_json

_AT_ONCE = 3  # threads: while the devices sample for one, others read and write


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
    What summary.json says. OSError is raised if it cannot be written.
  """
  folder, began, entries = outputs.folder, time.perf_counter(), {}
  given = given or {}
  made_with = _made_with(segmenter, checkpoint, options, given)
  names = [photo.name for photo in found]
  folder.mkdir(parents=True, exist_ok=True)
  # Each photo of which something is given is a group of its own.
  together = 1 if given else max(1, segmenter.batch_size // options.num_samples)
  groups = [found[i : i + together] for i in range(0, len(found), together)]

  def note(name, status, about, **more):
    entries[name] = {'photo': about['photo'], 'status': status, **more}
    progress.update()

  def read(path, name):
    """(name, its outputs, what NAME.json is to say, image, what is given)."""
    about = {'photo': os.path.abspath(path), 'made_with': made_with}
    about |= {'label_format': outputs.label_format}
    record, same, wanted = None, False, outputs
    try:
      record = files.read_record(folder, name)
      # Of a photo that cannot be reached for a while the files stay.
      same = record is not None and about.items() <= record.items()
      if path.is_file():
        status = path.stat()
        about |= {'bytes': status.st_size, 'modified': status.st_mtime}
        for kind, place in given.items():
          about[f'{kind}_digest'] = known.fingerprint(place, name)
        same = record is not None and about.items() <= record.items()
        if same and not overwrite:
          of_kinds = [record['files'].get(kind, ['']) for kind in outputs.kinds]
          if all((folder / file).is_file() for of in of_kinds for file in of):
            return note(name, 'there', about)
      say = lambda line: tqdm.write(f'note: {line}', file=sys.stderr)
      image = read_photo(path, options.exif, options.page, say)
      ids = {k: known.read(g, name, image.shape[:2]) for k, g in given.items()}
    except (SourceError, OSError) as error:
      reason = ' '.join(str(error).split())
      tqdm.write(f'skipped: {reason}', file=sys.stderr)
      if record is not None and not same:
        files.remove(folder, name, record)
      return note(name, 'failed', about, reason=reason)
    if same:  # other files of the same segmentation stay, and are as new
      kinds = files.KINDS.keys() & {*outputs.kinds, *record['files']}
      wanted = dataclasses.replace(outputs, kinds=sorted(kinds))
    else:
      files.remove(folder, name, record)
    return name, wanted, about, image, ids

  def work(group):
    """Segments photos together and writes their files."""
    tasks = [task for photo in group if (task := read(*photo))]
    if not tasks:
      return
    began = time.perf_counter()
    pixels = [image for *_, image, _ in tasks]
    said = {kind: [ids] for kind, ids in tasks[0][-1].items()}
    results = segmenter.segment_batch(pixels, options, **said)
    seconds = round((time.perf_counter() - began) / len(tasks), 3)
    for task, result in zip(tasks, results, strict=True):
      name, wanted, about, image, _ = task
      files.write(wanted, name, image, result, about)
      note(name, 'done', about, seconds=seconds)

  with (
    progress_bar(len(found), 'predict', 'photo') as progress,
    ThreadPoolExecutor(_AT_ONCE) as pool,
  ):
    list(pool.map(work, groups))
  summary = {
    'seconds': round(time.perf_counter() - began, 1),
    'outputs': list(outputs.kinds),
    'made_with': made_with,
    'photos': [entries[name] for name in names],
  }
  if whole:
    done = [name for name in names if entries[name]['status'] != 'failed']
    files.write_together(outputs, done)
    write_json(folder / 'summary.json', summary)
  return summary


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
