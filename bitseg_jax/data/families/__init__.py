"""Reads datasets as their authors ship them; FAMILIES lists them by name."""

import inspect
from pathlib import Path
from typing import Any

from bitseg_jax.data.families import bsds500, coco_panoptic, entityseg, folder
from bitseg_jax.data.outside import SourceError
from bitseg_jax.data.source import SPLITS, Source, count_unlabelled

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
  source = _check_names(family(source_dir, **options))
  missing = [split for split in SPLITS if not source.splits.get(split)]
  if missing and source.splits:
    source.notes.append(f'{source_dir}: nothing for {" and ".join(missing)}')
  return count_unlabelled(source) if unlabelled == 'entity' else source


def _check_names(source: Source) -> Source:
  """Leaves out items whose names are no text, or those of earlier items."""
  seen: dict[str, str] = {}
  splits = {}
  for split, items in source.splits.items():
    kept = []
    for item in items:
      if not item.name.isprintable():  # bytes that are not UTF-8, line breaks
        source.problems.append(f'{str(item.photo)!a}: rename it, in plain text')
      elif item.name in seen:
        # It could be used for both training and testing.
        source.problems.append(
          f'{item.photo}: another photo of {seen[item.name]} has its name'
        )
      else:
        kept.append(item)
        seen[item.name] = split
    if kept:
      splits[split] = kept
  return source._replace(splits=splits)
