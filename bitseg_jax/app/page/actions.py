"""What the page does: reads photos, segments them, hands out files."""

import contextlib
import dataclasses
import html
import itertools
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bitseg_jax import relabel
from bitseg_jax.app import files
from bitseg_jax.app.answer import AnswerOptions, Segmentation
from bitseg_jax.app.page import board
from bitseg_jax.app.page.board import Marks
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data import images, transforms
from bitseg_jax.data.outside import SourceError
from bitseg_jax.evaluation import pictures, upsample
from bitseg_jax.evaluation.draw_samples import Progress
from bitseg_jax.runs.log import write_json

EXAMPLES = sorted((Path(__file__).parent / 'examples').glob('*.jpg'))
KINDS = 'labels', 'overlay', 'uncertainty', 'sheet', 'coco', 'geojson'
_SAMPLE_SIDE = 512
_KEPT_RESULTS = 20  # folders; somebody may still be downloading from the last


class Photo(NamedTuple):
  """A photo as the page works with it, so that a click is answered at once."""

  name: str
  pixels: np.ndarray  # uint8 [h, w, 3], at most files.LONGEST_SIDE a side
  size: tuple[int, int]  # height and width of the photo itself


class Shown(NamedTuple):
  """A segmented photo, and with what it was made."""

  photo: Photo
  result: Segmentation  # of photo.pixels
  # The same segments, int32 [h, w], with the ids of those that they were before
  # a click wherever they are still there; and the colour of each id.
  matched: np.ndarray
  colors: dict[int, pictures.Color]
  overlay: np.ndarray  # uint8 [h, w, 3], in these colours over the photo
  marks: Marks
  options: AnswerOptions
  seconds: float


def open_photo(path: str | Path | None, max_pixels: int) -> Photo:
  """Reads what somebody uploaded.

  Args:
    path: the file; None if there is none.
    max_pixels: the most that are taken; more is refused before it is decoded.

  Raises:
    SourceError: it is none, or too large; in one line, without the folder.
  """
  if path is None:
    raise SourceError(
      'No photo is chosen yet: upload one, or tap one of the examples.'
    )
  path = Path(path)
  width = height = 0
  # What is wrong with a file is told below.
  with contextlib.suppress(Exception), Image.open(path) as image:
    width, height = image.size
  if width * height > max_pixels:
    raise SourceError(
      f'{path.name}: {width}x{height} is {width * height / 1e6:.1f} megapixels,'
      f' more than the {max_pixels / 1e6:g} taken here; shrink it'
    )
  try:
    photo = images.read_photo(path)
  except SourceError as error:
    raise SourceError(str(error).replace(f'{path}', path.name)) from error
  size = photo.shape[:2]
  pixels = transforms.resize_image(photo, _fit(size, files.LONGEST_SIDE))
  return Photo(path.name, pixels, size)


def _fit(size, longest):
  """Size to show a picture at; small ones stay."""
  if max(size) <= longest:
    return size
  return transforms.fit_longest_side(*size, longest)


def segment(
  segmenter: Segmenter,
  photo: Photo,
  options: AnswerOptions,
  marks: Marks,
  before: Shown | None = None,
  told: Callable[[Progress], None] | None = None,
) -> Shown:
  """Segments a photo for the page.

  Args:
    segmenter, photo, options: the model, the photo, how it is segmented.
    marks: what is known of it.
    before: what is shown of it so far; its entities keep their colours.
    told: told how far it is.
  """
  began = time.perf_counter()
  known = board.known(marks, photo.pixels.shape[:2])
  (result,) = segmenter.segment_batch(
    [photo.pixels], options, known=[known], progress=told
  )
  matched, colors = result.id_map, None
  if before is not None and np.array_equal(before.photo.pixels, photo.pixels):
    matched = pictures.match_ids(before.matched, result.id_map)
    colors = before.colors
  colors = pictures.entity_colors(matched, colors)
  overlay = pictures.overlay(photo.pixels, matched, colors=colors)
  seconds = time.perf_counter() - began
  return Shown(photo, result, matched, colors, overlay, marks, options, seconds)


def how_far(progress: Progress, num_samples: int) -> tuple[float, str]:
  """Returns the share that is done, and a line that says it.

  Close-ups are drawn after the `num_samples` of the whole photo.
  """
  drawn, total = progress.drawn, progress.total
  text = f'{min(drawn, num_samples)} of {num_samples} samples'
  if total > num_samples:
    closeups = max(drawn - num_samples, 0)
    text += f' and {closeups} of {total - num_samples} close-ups'
  return drawn / total, text + (' drawn' if drawn < total else '; joining them')


def summary(shown: Shown) -> str:
  """A line on what came out."""
  count, clicks = len(shown.result.confidence), len(shown.marks.done)
  marked = f', true to {clicks} mark{"s" * (clicks > 1)},' * bool(clicks)
  return (
    f'{shown.photo.name}: {count} entit{"y" if count == 1 else "ies"}{marked} '
    f'in {shown.seconds:.1f} s.'
  )


def note(text: str, bad: bool = False) -> str:
  """A line for the page; a bad one stands out."""
  style = 'border-left: 4px solid #dc2626; padding-left: 8px' if bad else ''
  role = 'alert' if bad else 'status'
  return f'<div role="{role}" style="{style}">{html.escape(text)}</div>'


def sample_pictures(shown: Shown) -> list[pictures.Cell]:
  """Each sample in the colours of the result, where they match."""
  size = _fit(shown.matched.shape, _SAMPLE_SIDE)
  id_map = transforms.resize_ids(shown.matched, size)
  cells = []
  for n in range(shown.result.num_samples):
    sample = transforms.resize_ids(shown.result.sample(n), size)
    matched = pictures.match_ids(id_map, sample)
    cells.append((pictures.colorize(matched, shown.colors), f'sample {n + 1}'))
  return cells


def uncertainty(shown: Shown) -> np.ndarray:
  """Where the segmentation is most uncertain, uint8 [h, w, 3]."""
  return pictures.doubt(shown.photo.pixels, shown.result.uncertainty)


def write_files(
  shown: Shown, parent: Path, made_with: dict[str, Any]
) -> list[str]:
  """Writes the files of a segmented photo, at the photo's own size.

  Args:
    shown: what the page shows.
    parent: folder in which each result gets its own; the oldest are deleted.
    made_with: what NAME.json is to say of the model.

  Returns:
    Paths of the files, at last of a zip of the others.
  """
  parent.mkdir(parents=True, exist_ok=True)
  results = sorted(parent.iterdir(), key=os.path.getmtime)
  for old in results[: 1 - _KEPT_RESULTS]:
    shutil.rmtree(old, ignore_errors=True)
  folder, stem = Path(tempfile.mkdtemp(dir=parent)), Path(shown.photo.name).stem
  made_with = {**made_with, **dataclasses.asdict(shown.options)}
  about = {'photo': shown.photo.name, 'made_with': made_with}
  outputs = files.Outputs(folder, KINDS)
  # Pictures for people are no larger than what the page shows.
  result = at_full_size(shown)
  record = files.write(outputs, stem, shown.photo.pixels, result, about)
  files.write_together(outputs, [stem])
  names = [*itertools.chain(*record['files'].values()), 'coco.json']
  if shown.marks.done:
    full = board.known(shown.marks, shown.matched.shape, shown.photo.size)
    write_json(folder / f'{stem}_marks.json', {stem: board.as_json(full)})
    names.append(f'{stem}_marks.json')
  names.append(f'{stem}.json')
  archive = folder / f'{stem}.zip'
  with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as out:
    for name in names:
      out.write(folder / name, name)
  return [*(str(folder / name) for name in names), str(archive)]


def at_full_size(shown: Shown) -> Segmentation:
  """Enlarges what the page shows to the photo's own size.

  Nothing is drawn anew: what one has seen is what one gets. Borders are
  interpolated, and marked pixels are as marked.
  """
  result, size = shown.result, shown.photo.size
  small = result.id_map.shape
  if small == size:
    return result
  ids = upsample.smooth_ids(result.id_map, size)
  full = board.known(shown.marks, small, size)
  for mark in shown.marks.done:
    x, y = mark.points[0]
    ids[full == mark.entity] = result.id_map[y, x]
  ids, present = relabel.compact(ids)
  return dataclasses.replace(
    result,
    id_map=ids,
    uncertainty=upsample.upsample_values(result.uncertainty, size),
    confidence=result.confidence[present],
  )
