"""What the demo page shows; layout.py is how it looks."""

import contextlib
import html
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from bitseg_jax.app import files, photos
from bitseg_jax.app.answer import Segmentation
from bitseg_jax.app.page import board, marks
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data import transforms
from bitseg_jax.data.outside import SourceError
from bitseg_jax.evaluation import pictures
from bitseg_jax.evaluation.draw_samples import Progress

EXAMPLES = sorted((Path(__file__).parent / 'examples').glob('*.jpg'))
Told = Callable[[Progress], None]
Done = TypeVar('Done')

_SAMPLE_SIDE = 512


class Photo(NamedTuple):
  """A photo as the page works with it, so that a click is answered at once.

  Attributes:
    name: of the file.
    pixels: uint8 [h, w, 3], at most files.LONGEST_SIDE a side.
    size: height and width of the photo itself.
  """

  name: str
  pixels: np.ndarray
  size: tuple[int, int]


class Shown(NamedTuple):
  """A segmented photo.

  Attributes:
    photo: the photo.
    result: its segmentation, of photo.pixels.
    matched: int32 [h, w], the same segments, with the ids of those that they
      were before a click wherever they are still there.
    colors: of each id in matched.
    marks: those that it was made with.
    made_with: settings and checkpoint, for the files.
    seconds: that it took.
  """

  photo: Photo
  result: Segmentation
  matched: np.ndarray
  colors: dict[int, pictures.Color]
  marks: marks.Marks
  made_with: dict[str, Any]
  seconds: float


def read_photo(path: str | Path | None, max_pixels: int) -> np.ndarray:
  """Reads what somebody uploaded.

  Args:
    path: the file; None if there is none.
    max_pixels: the most that are taken; more is refused before it is decoded.

  Returns:
    uint8 [H, W, 3].

  Raises:
    SourceError: there is none, it is no photo, or too large; in one line,
      without the folder.
  """
  if path is None:
    raise SourceError(
      'No photo is chosen yet: upload one, or tap one of the examples.'
    )
  path = Path(path)
  try:
    with Image.open(path) as image:
      width, height = image.size
  except Exception:  # Pillow raises many types; photos.read says what it is
    width = height = 0
  if width * height > max_pixels:
    raise SourceError(
      f'{path.name}: {width}x{height} is {width * height / 1e6:.1f} megapixels,'
      f' more than the {max_pixels / 1e6:g} taken here; shrink it'
    )
  try:
    return photos.read(path)
  except SourceError as error:
    raise SourceError(str(error).replace(f'{path}', path.name)) from error


def open_photo(path: str | Path | None, max_pixels: int) -> Photo:
  """Reads what somebody uploaded, for the page to work with.

  Args:
    path, max_pixels: as in `read_photo`.

  Raises:
    SourceError: see there.
  """
  photo = read_photo(path, max_pixels)
  size = photo.shape[:2]
  fitting = _fit(*size, files.LONGEST_SIDE)
  return Photo(Path(path).name, transforms.resize_image(photo, fitting), size)


def inspect(path: str | None, max_pixels: int) -> tuple[str, np.ndarray | None]:
  """Says at once whether an upload can be segmented.

  Args:
    path: the file; None if there is none.
    max_pixels: as in `read_photo`.

  Returns:
    HTML with one line for the page, and a picture, uint8 [h, w, 3], if it can.
  """
  if path is None:
    return note('Choose a photo, or tap one of those above.'), None
  try:
    photo = open_photo(path, max_pixels)
  except SourceError as error:
    return note(str(error), bad=True), None
  height, width = photo.size
  return note(f'{width}x{height} pixels; press Segment.'), photo.pixels


def working(segment: Callable[[Told], Done]) -> Iterator[str | Done]:
  """Segments in the background and says how far it is.

  Args:
    segment: given a function to tell how far it is.

  Yields:
    Lines for the page, and at last the result.
  """
  told = queue.SimpleQueue()
  began = time.monotonic()
  first = latest = None  # (how far, when)
  with ThreadPoolExecutor(1) as worker:
    future = worker.submit(
      segment, lambda how_far: told.put((how_far, time.monotonic()))
    )
    yield _line('Working, 0 s so far ...')
    while not future.done():
      with contextlib.suppress(queue.Empty):
        latest = told.get(timeout=0.3)
        # Before the first step it may have been compiled.
        first = first or latest
      if latest:
        yield _progress(first, latest)
      else:
        yield _line(f'Working, {time.monotonic() - began:.0f} s so far ...')
  yield future.result()


def _progress(first, latest):
  """A line that says sample, step and time left, which it knows from two."""
  (how_far, now), share = latest, _share(latest[0])
  if how_far.drawn == how_far.total:
    return _line(f'All {how_far.total} samples drawn; joining them ...')
  number, last = how_far.drawn + 1, how_far.drawn + how_far.at_work
  if not how_far.at_work:
    text = f'{how_far.drawn} of {how_far.total} samples drawn'
  elif number == last:
    text = f'Sample {number} of {how_far.total}'
  else:
    text = f'Samples {number} to {last} of {how_far.total}'
  if how_far.step:
    step = min(how_far.step, how_far.num_steps)
    text += f', step {step} of {how_far.num_steps}'
  since = share - _share(first[0])
  if since > 0:
    left = (now - first[1]) * (1 - share) / since
    text += f', about {max(1, round(left))} s left'
  return _line(f'{text} ...', f' value="{share:.4f}"')


def _share(how_far):
  """The share of all steps that are done."""
  steps = min(max(how_far.step - 1, 0), how_far.num_steps) / how_far.num_steps
  return (how_far.drawn + how_far.at_work * steps) / how_far.total


def _line(text, value=''):
  """A line with a bar; it moves while nobody knows how long it takes."""
  bar = f'<progress{value}></progress>'
  return f'<div role="status" class="working">{text}{bar}</div>'


def segment(
  segmenter: Segmenter,
  photo: Photo,
  checkpoint: str,
  settings: dict[str, Any],
  marked: marks.Marks,
  before: Shown | None = None,
  told: Told | None = None,
) -> Shown:
  """Segments a photo for the page.

  Args:
    segmenter: the model.
    photo: the photo.
    checkpoint: where the model is from.
    settings: of Segmenter.segment.
    marked: what is known of the photo.
    before: what is shown of it so far; its entities keep their colours.
    told: see `working`.

  Returns:
    What there is to show.

  Raises:
    ValueError: a setting is none that the segmenter takes.
  """
  if settings['seed'] is None:
    raise ValueError('seed is empty; give a whole number')
  began = time.perf_counter()
  known = marks.known(marked, photo.pixels.shape[:2])
  how = {'known': known, 'progress': told}
  result = segmenter.segment(photo.pixels, **settings, **how)
  if before is not None and np.array_equal(before.photo.pixels, photo.pixels):
    matched = pictures.match_ids(before.matched, result.id_map)
    known_colors = before.colors
  else:
    matched, known_colors = result.id_map, None
  made_with = {
    'checkpoint': checkpoint,
    'step': segmenter.step,
    'digest': segmenter.digest,
    **settings,
  }
  return Shown(
    photo,
    result,
    matched,
    pictures.entity_colors(matched, known_colors),
    marked,
    made_with,
    time.perf_counter() - began,
  )


def entities(shown: Shown) -> str:
  """HTML of the segmentation; pointing at an entity tells of it."""
  pixels, result = shown.photo.pixels, shown.result
  overlay = pictures.overlay(pixels, shown.matched, colors=shown.colors)
  return board.picture(overlay, result.id_map, result.confidence)


def summary(shown: Shown) -> str:
  """A line on what came out."""
  count, clicks = len(shown.result.confidence), len(shown.marks.done)
  marked = f', true to {clicks} mark{"s" * (clicks > 1)},' * bool(clicks)
  return (
    f'{shown.photo.name}: {count} entit{"y" if count == 1 else "ies"}{marked} '
    f'in {shown.seconds:.1f} s.'
  )


def sample_pictures(shown: Shown) -> list[pictures.Cell]:
  """Each sample in the colours of the result, where they match."""
  size = _fit(*shown.matched.shape, _SAMPLE_SIDE)
  id_map = transforms.resize_ids(shown.matched, size)
  cells = []
  for n in range(shown.result.num_samples):
    sample = transforms.resize_ids(shown.result.sample(n), size)
    picture = pictures.colorize(
      pictures.match_ids(id_map, sample), shown.colors
    )
    cells.append((picture, f'sample {n + 1}'))
  return cells


def uncertainty(shown: Shown) -> np.ndarray:
  """Where the segmentation is most uncertain, uint8 [h, w, 3]."""
  return pictures.doubt(shown.photo.pixels, shown.result.uncertainty)


def note(text: str, bad: bool = False) -> str:
  """A line for the page; a bad one stands out."""
  style = 'border-left: 4px solid #dc2626; padding-left: 8px' if bad else ''
  role = 'alert' if bad else 'status'
  return f'<div role="{role}" style="{style}">{html.escape(text)}</div>'


def _fit(height, width, longest):
  """Size to show a picture at; small ones stay."""
  if max(height, width) <= longest:
    return height, width
  return transforms.fit_longest_side(height, width, longest)
