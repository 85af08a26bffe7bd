"""Reads datasets as their authors ship them; FAMILIES lists them by name."""

import inspect
from pathlib import Path
from typing import Any

from bitseg_jax.data.families import bsds500, coco_panoptic, entityseg, folder
from bitseg_jax.data.source import Source, SourceError, count_unlabelled

FAMILIES = {
  'bsds500': bsds500.open_source,
  'coco_panoptic': coco_panoptic.open_source,
  'entityseg': entityseg.open_source,
  'folder': folder.open_source,
}


def open_source(
  dataset: str,
  source_dir: str | Path,
  unlabelled: str = 'ignore',
  **options: Any,
) -> Source:
  """Lists the items of a downloaded dataset of any family.

  Args:
    dataset: a name in `FAMILIES`.
    source_dir: directory that holds the dataset as it was downloaded.
    unlabelled: 'ignore' unlabelled pixels, or count them as one more 'entity'.
    **options: passed to the family's own `open_source`.

  Returns:
    The source.

  Raises:
    SourceError: if the directory does not exist or has another layout, or an
      option is not for this family.
  """
  family = FAMILIES[dataset]
  for name in options.keys() - inspect.signature(family).parameters:
    raise SourceError(f'--{name} is not for --dataset={dataset}')
  if not Path(source_dir).is_dir():
    raise SourceError(f'{source_dir}: no such directory')
  source = family(source_dir, **options)
  return count_unlabelled(source) if unlabelled == 'entity' else source
