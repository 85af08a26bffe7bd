"""What the demo page shows and hands out; layout.py is how it looks."""

import base64
import contextlib
import html
import io
import queue
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bitseg_jax.data import transforms
from bitseg_jax.data.outside import SourceError
from bitseg_jax.output import files, viz
from bitseg_jax.segmenting import photos
from bitseg_jax.segmenting.answer import Segmentation
from bitseg_jax.segmenting.drawing import Progress
from bitseg_jax.segmenting.segmenter import Segmenter

EXAMPLES = sorted((Path(__file__).parent / 'examples').glob('*.jpg'))
Told = Callable[[Progress], None]

_KINDS = ('labels', 'overlay', 'uncertainty')
_SAMPLE_SIDE = 512
_KEPT_RESULTS = 20  # folders; somebody may still be downloading from the last

# Labels by CSS alone: no script, and a tap does what a mouse does.
_STYLE = """
.entities { width: 100%; max-height: 75vh; display: block; }
.entities path { fill: #fff; fill-opacity: 0; }
.entities g:hover path { fill-opacity: .45; }
.entities text {
  fill: currentColor; font-family: sans-serif; font-size: calc(var(--w) / 24);
}
@media (min-width: 641px) {
  .entities text { font-size: calc(var(--w) / 50); }
}
.entities g text, .entities:has(g:hover) .hint { visibility: hidden; }
.entities g:hover text { visibility: visible; }
"""


class Result(NamedTuple):
  """What the page shows of one photo.

  Attributes:
    message: HTML with one line on how it went.
    entities: HTML; pointing at an entity shows its area and confidence.
    samples: (uint8 [h, w, 3], caption) of each sample.
    uncertainty: uint8 [h, w, 3]; the page has a colour bar of its own.
    files: what can be downloaded; the last is a zip of the others.
  """

  message: str
  entities: str
  samples: list[viz.Cell]
  uncertainty: np.ndarray
  files: list[str]


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
    photo = read_photo(path, max_pixels)
  except SourceError as error:
    return note(str(error), bad=True), None
  height, width = photo.shape[:2]
  size = _fit(height, width, files.LONGEST_SIDE)
  text = f'{width}x{height} pixels; press Segment.'
  return note(text), transforms.resize_image(photo, size)


def working(segment: Callable[[Told], Result]) -> Iterator[str | Result]:
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
  photo: np.ndarray,
  name: str,
  folder: Path,
  checkpoint: str,
  settings: dict[str, Any],
  told: Told | None = None,
) -> Result:
  """Segments a photo for the page and writes its files.

  Args:
    segmenter: the model.
    photo: uint8 [H, W, 3].
    name: the photo's file name.
    folder: where results go, each in its own folder; the oldest are deleted.
    checkpoint: where the model is from.
    settings: of Segmenter.segment.
    told: see `working`.

  Returns:
    What there is to show.

  Raises:
    ValueError: a setting is none that the segmenter takes.
  """
  if settings['seed'] is None:
    raise ValueError('seed is empty; give a whole number')
  began = time.perf_counter()
  result = segmenter.segment(photo, **settings, progress=told)
  seconds = time.perf_counter() - began
  made_with = {
    'checkpoint': checkpoint,
    'step': segmenter.step,
    'digest': segmenter.digest,
    **settings,
  }
  about = {'photo': name, 'made_with': made_with}
  stem = _make_folder(folder) / Path(name).stem
  paths = _write_files(stem, photo, result, about)
  with Image.open(f'{stem}_overlay.png') as image:
    overlay = np.asarray(image.convert('RGB'))
  count = len(result.confidence)
  entities = f'{count} entit{"y" if count == 1 else "ies"}'
  return Result(
    note(f'{name}: {entities} in {seconds:.1f} s.'),
    entities_html(overlay, result),
    sample_pictures(result),
    files.uncertainty_picture(result, overlay.shape[:2]),
    paths,
  )


def entities_html(picture: np.ndarray, result: Segmentation) -> str:
  """Makes the HTML of a picture whose entities are named where one points.

  Args:
    picture: uint8 [h, w, 3], of any size.
    result: the segmentation.

  Returns:
    HTML that needs no other file.
  """
  height, width = picture.shape[:2]
  jpeg = io.BytesIO()
  Image.fromarray(picture).save(jpeg, 'JPEG', quality=90)
  data = base64.b64encode(jpeg.getvalue()).decode()
  line = width / 18
  # Above the picture, where it is seen without scrolling.
  where = f'x="0" y="{-0.4 * line:.1f}"'
  shares = np.bincount(result.id_map.ravel()) / result.id_map.size
  paths = _paths(transforms.resize_ids(result.id_map, (height, width)))
  groups = [
    f'<g><path d="{path}"/><text {where}>Entity {k + 1}: '
    f'{100 * shares[k]:.1f}% of the area, '
    f'confidence {result.confidence[k]:.2f}</text></g>'
    for k, path in paths.items()
  ]
  return (
    f'<style>{_STYLE}</style><svg class="entities" style="--w: {width}px" '
    f'viewBox="0 {-line:.1f} {width} {height + line:.1f}">'
    f'<image width="{width}" height="{height}" '
    f'href="data:image/jpeg;base64,{data}"/>'
    f'<text class="hint" {where}>Point at or tap an entity for its area and '
    f'confidence.</text>{"".join(groups)}</svg>'
  )


def sample_pictures(result: Segmentation) -> list[viz.Cell]:
  """Each sample in the colours of the result, where they match."""
  size = _fit(*result.id_map.shape, _SAMPLE_SIDE)
  id_map = transforms.resize_ids(result.id_map, size)
  colors = viz.entity_colors(id_map)
  cells = []
  for n in range(result.num_samples):
    sample = transforms.resize_ids(result.sample(n), size)
    picture = viz.colorize(viz.match_ids(id_map, sample), colors)
    cells.append((picture, f'sample {n + 1}'))
  return cells


def color_bar() -> str:
  """Returns HTML with the colours of uncertainty, from sure to unsure."""
  (colors,) = viz.uncertainty_map(np.linspace(0, 1, 9)[None])
  stops = ', '.join('rgb({}, {}, {})'.format(*color) for color in colors)
  return (
    '<div style="display: flex; gap: 8px; align-items: center">certain'
    '<div style="height: 12px; flex: 1; max-width: 240px; background: '
    f'linear-gradient(to right, {stops})"></div>uncertain</div>'
  )


def note(text: str, bad: bool = False) -> str:
  """A line for the page; a bad one stands out."""
  style = 'border-left: 4px solid #dc2626; padding-left: 8px' if bad else ''
  role = 'alert' if bad else 'status'
  return f'<div role="{role}" style="{style}">{html.escape(text)}</div>'


def _write_files(stem, photo, result, about):
  """Paths of the files that can be downloaded, the zip last."""
  files.write(stem.parent, stem.name, photo, result, _KINDS, about)
  paths = [f'{stem}_{kind}.png' for kind in _KINDS] + [f'{stem}.json']
  with zipfile.ZipFile(f'{stem}.zip', 'w', zipfile.ZIP_DEFLATED) as out:
    for file in paths:
      out.write(file, Path(file).name)
  return [*paths, f'{stem}.zip']


def _fit(height, width, longest):
  """Size to show a picture at; small ones stay."""
  if max(height, width) <= longest:
    return height, width
  return transforms.fit_longest_side(height, width, longest)


def _make_folder(parent):
  """A new folder in parent; all but the latest are deleted."""
  parent.mkdir(parents=True, exist_ok=True)
  numbers = sorted(int(old.name) for old in parent.iterdir())
  for number in numbers[: 1 - _KEPT_RESULTS]:
    shutil.rmtree(parent / str(number), ignore_errors=True)
  folder = parent / str(numbers[-1] + 1 if numbers else 0)
  folder.mkdir()
  return folder


def _paths(id_map):
  """{id: SVG path of its pixels}, a box for each run in a row."""
  width = id_map.shape[1]
  flat = id_map.ravel()
  begins = np.arange(flat.size) % width == 0
  begins[1:] |= flat[1:] != flat[:-1]
  starts = np.flatnonzero(begins)
  lengths = np.diff(starts, append=flat.size)
  paths = {}
  for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
    y, x = divmod(start, width)
    box = f'M{x} {y}h{length}v1h-{length}z'
    paths.setdefault(int(flat[start]), []).append(box)
  return {k: ''.join(paths[k]) for k in sorted(paths)}
