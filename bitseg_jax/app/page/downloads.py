"""The files that the page hands out, at the photo's own size."""

import dataclasses
import itertools
import shutil
import zipfile
from pathlib import Path

import numpy as np

from bitseg_jax import relabel
from bitseg_jax.app import files
from bitseg_jax.app.answer import Segmentation
from bitseg_jax.app.page import marks
from bitseg_jax.app.page.actions import Shown
from bitseg_jax.evaluation import upsample
from bitseg_jax.runs.log import write_json

_KINDS = 'labels', 'overlay', 'uncertainty', 'coco', 'geojson'
_KEPT_RESULTS = 20  # folders; somebody may still be downloading from the last


def write(shown: Shown, parent: Path) -> list[str]:
  """Writes the files of a segmented photo.

  Args:
    shown: what the page shows.
    parent: folder in which each result gets its own; the oldest are deleted.

  Returns:
    Paths of the files, at last of a zip of the others.
  """
  folder, stem = _make_folder(parent), Path(shown.photo.name).stem
  about = {'photo': shown.photo.name, 'made_with': shown.made_with}
  result = at_full_size(shown)
  # Pictures for people are no larger than what the page shows.
  outputs = files.Outputs(folder, _KINDS)
  record = files.write(outputs, stem, shown.photo.pixels, result, about)
  files.write_together(outputs, [stem])
  names = [*itertools.chain(*record['files'].values()), 'coco.json']
  if shown.marks.done:
    sizes = shown.photo.pixels.shape[:2], shown.photo.size
    names.append(f'{stem}_marks.json')
    said = marks.as_json(shown.marks, stem, *sizes)
    write_json(folder / names[-1], said)
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
  if result.id_map.shape == size:
    return result
  small = result.id_map.shape
  ids = upsample.smooth_ids(result.id_map, size)
  marked = np.nonzero(marks.known(shown.marks, small) >= 0)
  ids[marks.enlarge(marked, small, size)] = result.id_map[marked]
  ids, present = relabel.compact(ids)
  return dataclasses.replace(
    result,
    id_map=ids,
    uncertainty=upsample.upsample_values(result.uncertainty, size),
    confidence=result.confidence[present],
  )


def _make_folder(parent):
  """A new folder in parent; all but the latest are deleted."""
  parent.mkdir(parents=True, exist_ok=True)
  numbers = sorted(int(old.name) for old in parent.iterdir())
  for number in numbers[: 1 - _KEPT_RESULTS]:
    shutil.rmtree(parent / str(number), ignore_errors=True)
  folder = parent / str(numbers[-1] + 1 if numbers else 0)
  folder.mkdir()
  return folder
