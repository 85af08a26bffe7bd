"""What the page does: reads photos, segments them, hands out files."""

import contextlib
import dataclasses
import html
import os
import shutil
import tempfile
import time
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
from bitseg_jax.runs.log import write_json

EXAMPLES = sorted((Path(__file__).parent / 'examples').glob('*.jpg'))
KINDS = 'labels', 'overlay', 'uncertainty', 'sheet', 'coco', 'geojson'
_KEPT_RESULTS = 20  # folders; somebody may still be downloading from the last


class Upload(NamedTuple):
  """A photo as the page works with it, so that a click is answered at once."""

  name: str
  pixels: np.ndarray  # uint8 [h, w, 3], at most files.LONGEST_SIDE a side
  size: tuple[int, int]  # height and width of the photo itself


class Shown(NamedTuple):
  """A segmented photo, and with what it was made."""

  photo: Upload
  result: Segmentation  # of photo.pixels
  # The same segments, int32 [h, w], with the ids of those that they were before
  # a click wherever they are still there; and the colour of each id.
  matched: np.ndarray
  colors: dict[int, pictures.Color]
  overlay: np.ndarray  # uint8 [h, w, 3], in these colours over the photo
  marks: Marks
  options: AnswerOptions
  seconds: float


def open_photo(path: str | Path | None, max_pixels: int) -> Upload:
  """Reads what somebody uploaded.

  Args:
    path: the file; None if there is none.
    max_pixels: the most that are taken; more is refused.

  Raises:
    SourceError: it is none, or too large; in one line, without the folder.
  """
  if path is None:
    raise SourceError(
      'No photo is chosen yet: upload one, or tap one of the examples.'
    )
  path, pixels = Path(path), 0
  # What is wrong with a file is told below.
  with contextlib.suppress(Exception), Image.open(path) as image:
    pixels = image.width * image.height
  if pixels > max_pixels:
    raise SourceError(
      f'{path.name}: {pixels / 1e6:.3g} megapixels are more than the '
      f'{max_pixels / 1e6:g} taken here; shrink it'
    )
  try:
    photo = images.read_photo(path)
  except SourceError as error:
    raise SourceError(str(error).replace(f'{path}', path.name)) from error
  if photo.size > 3 * max_pixels:  # in a TIFF that Pillow does not know
    raise SourceError(f'{path.name}: over {max_pixels} pixels; shrink it')
  size = photo.shape[:2]
  small = transforms.fit_longest_side(*size, min(max(size), files.LONGEST_SIDE))
  return Upload(path.name, transforms.resize_image(photo, small), size)


def segment(
  segmenter: Segmenter,
  photo: Upload,
  options: AnswerOptions,
  marks: Marks,
  before: Shown | None = None,
  told: Callable[[tuple[int, int]], None] | None = None,
) -> Shown:
  """Segments a photo, true to its marks, and tells how far it is.

  Entities that were shown of it `before` keep their colours.
  """
  began = time.perf_counter()
  said = board.known(marks, photo.pixels.shape[:2])
  (result,) = segmenter.segment_batch(
    [photo.pixels], options, known=[said], progress=told
  )
  matched, colors = result.id_map, None
  if before is not None and np.array_equal(before.photo.pixels, photo.pixels):
    matched = pictures.match_ids(before.matched, result.id_map)
    colors = before.colors
  colors = pictures.entity_colors(matched, colors)
  overlay = pictures.overlay(photo.pixels, matched, colors=colors)
  seconds = time.perf_counter() - began
  return Shown(photo, result, matched, colors, overlay, marks, options, seconds)


def summary(shown: Shown) -> str:
  """A line on what came out."""
  clicks = len(shown.marks.done)
  return (
    f'{shown.photo.name}: {len(shown.result.confidence)} entities'
    + f', true to {clicks} marks,' * bool(clicks)
    + f' in {shown.seconds:.2f} s.'
  )


def note(text: str, bad: bool = False) -> str:
  """A line for the page; a bad one stands out."""
  style = 'border-left: 4px solid #dc2626; padding-left: 8px' if bad else ''
  role = 'alert' if bad else 'status'
  return f'<div role="{role}" style="{style}">{html.escape(text)}</div>'


def write_files(
  shown: Shown, parent: Path, made_with: dict[str, Any]
) -> tuple[str, list[str]]:
  """Writes the files of a segmented photo, at the photo's own size.

  Args:
    shown: what the page shows.
    parent: folder in which each result gets its own; the oldest are deleted.
    made_with: what NAME.json is to say of the model.

  Returns:
    (path of the sheet, paths of all files, at last of a zip of the others).
  """
  parent.mkdir(parents=True, exist_ok=True)
  results = sorted(parent.iterdir(), key=os.path.getmtime)
  for old in results[: 1 - _KEPT_RESULTS]:
    shutil.rmtree(old, ignore_errors=True)
  folder = Path(tempfile.mkdtemp(dir=parent), 'files')
  stem, result = Path(shown.photo.name).stem, at_full_size(shown)
  stem += '~2' * (stem.casefold() == 'coco')  # as photos.find names it
  made_with = {**made_with, **dataclasses.asdict(shown.options)}
  about = {'photo': shown.photo.name, 'made_with': made_with}
  outputs = files.Outputs(folder, KINDS)
  # Pictures for people are no larger than what the page shows.
  files.write(outputs, stem, shown.photo.pixels, result, about)
  files.write_together(outputs, [stem])
  if shown.marks.done:
    full = board.known(shown.marks, shown.matched.shape, shown.photo.size)
    write_json(folder / f'{stem}_marks.json', {stem: board.as_json(full)})
  written = sorted(map(str, folder.iterdir()))
  archive = shutil.make_archive(str(folder.parent / stem), 'zip', folder)
  return str(folder / f'{stem}_sheet.png'), [*written, archive]


def at_full_size(shown: Shown) -> Segmentation:
  """Enlarges what the page shows to the photo's own size.

  Nothing is drawn anew: what one has seen is what one gets. Borders are
  interpolated, and marked pixels are as marked.
  """
  result, size = shown.result, shown.photo.size
  small = result.id_map.shape
  if small == size:
    return result
  said, full = (board.known(shown.marks, small, to) for to in (small, size))
  own = np.zeros(shown.marks.count, np.int32)
  own[said[said >= 0]] = result.id_map[said >= 0]
  ids = upsample.smooth_ids(result.id_map, size)
  ids[full >= 0] = own[full[full >= 0]]
  ids, present = relabel.compact(ids)
  return dataclasses.replace(
    result,
    id_map=ids,
    uncertainty=upsample.upsample_values(result.uncertainty, size),
    confidence=result.confidence[present],
  )
