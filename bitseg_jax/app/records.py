"""Which files a photo has in the output directory, and what NAME.json says."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitseg_jax.data.outside import SourceError

KINDS = (
  'labels',
  'overlay',
  'contours',
  'uncertainty',
  'samples',
  'panoptic',
  'rle',
  'geojson',
  'sheet',
)
# Files of all photos together, beside sheet_1.png, sheet_2.png, ...
TOGETHER = 'summary.json', 'panoptic.json', 'rle.json'
Record = dict[str, Any]


def default_kinds(num_samples: int) -> list[str]:
  """What is written unless somebody says otherwise."""
  return ['labels', 'overlay'] + ['uncertainty'] * (num_samples > 1)


def check_kinds(kinds: Sequence[str]) -> None:
  """Raises ValueError for no kind at all, or one that does not exist."""
  if not kinds:
    raise ValueError(f'--outputs is empty; choose from {",".join(KINDS)}')
  for kind in kinds:
    if kind not in KINDS:
      raise ValueError(f'--outputs has {kind!r}; choose from {",".join(KINDS)}')


def file_names(name: str, kinds: Sequence[str], num_samples: int) -> list[str]:
  """Files of one photo besides NAME.json, relative to the output directory."""
  names = []
  for kind in ('labels', 'overlay', 'contours', 'uncertainty', 'samples'):
    if kind in kinds or (kind == 'overlay' and 'sheet' in kinds):
      names.append(f'{name}_{kind}.png')
  if 'samples' in kinds:
    names += [f'{name}_sample_{n + 1}.png' for n in range(num_samples)]
  if 'panoptic' in kinds:
    names.append(f'panoptic/{name}.png')
  if 'geojson' in kinds:
    names.append(f'{name}.geojson')
  return names


def path(output: str | Path, name: str) -> Path:
  """Returns the place of a photo's NAME.json."""
  return Path(output) / f'{name}.json'


def read(output: str | Path, name: str) -> Record | None:
  """Reads NAME.json of a photo.

  Args:
    output, name: directory, and what the file names begin with.

  Returns:
    What it says; None where there is none that can be read.

  Raises:
    SourceError: it was not written by this package.
  """
  file = path(output, name)
  try:
    record = json.loads(file.read_bytes())
  except (OSError, ValueError):
    return None
  made_with = record.get('made_with') if isinstance(record, dict) else None
  if not isinstance(made_with, dict) or 'num_samples' not in made_with:
    raise SourceError(
      f'{file} was not written by predict and would be overwritten; choose '
      'another --output'
    )
  return record


def remove(output: str | Path, name: str, record: Record | None) -> None:
  """Removes the files of a photo that was segmented otherwise before.

  With them go the files of all photos together, which tell of it, too.

  Args:
    output, name: directory, and what the file names begin with.
    record: as from `read`. None: only samples are removed, of a run that was
      killed before it wrote NAME.json.
  """
  output, count = Path(output), itertools.count(1)
  if record is None:
    files = itertools.takewhile(
      Path.is_file, (output / f'{name}_sample_{n}.png' for n in count)
    )
  else:
    number = record['made_with']['num_samples']
    names = f'{name}.json', *file_names(name, KINDS, number), *TOGETHER
    # Not sheet_a_labels.png, which is of a photo called sheet_a.
    sheets = itertools.takewhile(
      Path.is_file, (output / f'sheet_{n}.png' for n in count)
    )
    files = [*(output / file for file in names), *sheets]
  for file in list(files):
    file.unlink(missing_ok=True)
