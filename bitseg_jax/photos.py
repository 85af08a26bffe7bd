"""Photos and what became of them, on disk: find, read, write."""

import glob
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bitseg_jax import viz
from bitseg_jax.data import source, transforms
from bitseg_jax.data.folder import PHOTO_SUFFIXES
from bitseg_jax.segmenter import Segmentation

LONGEST_SIDE = 1024  # of pictures: in larger ones contours are too thin to see
SHOWN_SAMPLES = 10


def find(inputs: str, output: str | Path) -> list[Path]:
  """Files that a path or a pattern names, sorted.

  Args:
    inputs: a photo, a directory of photos, or a glob pattern (** goes deep).
    output: where results are to be written.

  Returns:
    Paths whose stems are unique.

  Raises:
    ValueError: there is none, two would write the same file, or one lies in
      the output directory.
  """
  if Path(inputs).is_dir():
    found = [
      path
      for path in Path(inputs).iterdir()
      if path.suffix.lower() in PHOTO_SUFFIXES and path.name[0] != '.'
    ]
  elif Path(inputs).exists():  # a name may well hold [ or *
    found = [Path(inputs)]
  else:
    found = [Path(path) for path in glob.glob(inputs, recursive=True)]
  paths = sorted(path for path in found if path.is_file())
  if not paths:
    raise ValueError(
      f'{inputs}: no photo there; give --input a photo, a directory with '
      f'photos ({" ".join(PHOTO_SUFFIXES)}), or a quoted pattern'
    )
  by_stem = {}
  for path in paths:
    other = by_stem.setdefault(path.stem, path)
    if other is not path:
      raise ValueError(
        f'{other} and {path} would both become {path.stem}_labels.png; rename '
        'one, or give each its own --output'
      )
    if path.resolve().parent == Path(output).resolve():
      raise ValueError(f'{path} lies in the output directory; write elsewhere')
  return paths


def read(paths: Iterable[Path]) -> dict[Path, np.ndarray]:
  """Reads photos upright as uint8 [H, W, 3], leaving out what it cannot read.

  Of every file left out, one line on stderr says why.
  """
  photos = {}
  for path in paths:
    try:
      photos[path] = source.read_photo(path)[0]
    except source.SourceError as error:
      tqdm.write(f'skipped: {error}', file=sys.stderr)
  return photos


def write(
  output: str | Path, name: str, photo: np.ndarray, result: Segmentation
) -> None:
  """Writes the files that predict.py lists, each whole or not at all.

  Args:
    output: directory, made if it is not there.
    name: what the file names begin with.
    photo: uint8 [H, W, 3].
    result: its segmentation.
  """
  output = Path(output)
  output.mkdir(parents=True, exist_ok=True)
  labels = (result.id_map + 1).astype(np.uint16)
  viz.save_png(labels, output / f'{name}_labels.png')
  size = photo.shape[:2]
  if max(size) > LONGEST_SIDE:
    size = transforms.fit_longest_side(*size, LONGEST_SIDE)
  photo = transforms.resize_image(photo, size)
  id_map = transforms.resize_ids(result.id_map, size)
  viz.save_png(viz.overlay(photo, id_map), output / f'{name}_overlay.png')
  if len(result.samples) == 1:
    return
  uncertainty = transforms.resize_image(
    viz.uncertainty_map(result.uncertainty), size
  )
  viz.save_png(uncertainty, output / f'{name}_uncertainty.png')
  colors = viz.entity_colors(id_map)
  cells = [(photo, 'photo'), (uncertainty, 'uncertainty')]
  for n, sample in enumerate(result.samples[:SHOWN_SAMPLES]):
    chosen = np.array_equal(sample, result.id_map)
    matched = viz.match_ids(id_map, transforms.resize_ids(sample, size))
    caption = f'sample {n + 1}' + ' (chosen)' * chosen
    cells.append((viz.colorize(matched, colors), caption))
  rows = [cells[i : i + 4] for i in range(0, len(cells), 4)]
  viz.gallery(rows, output / f'{name}_samples.png', cell_size=240)
