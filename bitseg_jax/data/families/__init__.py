"""Reads datasets as their authors ship them; FAMILIES lists them by name."""

import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np

from bitseg_jax.data.families import (
  bsds500,
  coco,
  entityseg,
  folder,
)
from bitseg_jax.data.outside import SourceError
from bitseg_jax.data.source import SPLITS, Source

FAMILIES = {
  'bsds500': bsds500.open_source,
  'coco_instances': coco.open_instances,
  'coco_panoptic': coco.open_panoptic,
  'entityseg': entityseg.open_source,
  'folder': folder.open_source,
}


def open_source(
  dataset: str,
  source_dir: str | Path,
  unlabelled: str = 'ignore',
  exif: str = 'apply',
  page: int = 0,
  **options: Any,
) -> Source:
  """Lists the items of a downloaded dataset of a family in `FAMILIES`.

  Args:
    dataset, source_dir: its name, and where it is, as it was downloaded.
    unlabelled: 'ignore' unlabelled pixels, or count them as one more 'entity'.
    exif, page: how photos are read, see images.read_photo.
    **options: of the family's own `open_source`.

  Raises:
    SourceError: the layout is another, or an option is not for this family.
  """
  family = FAMILIES[dataset]
  for name in options.keys() - inspect.signature(family).parameters:
    raise SourceError(f'--{name} is not for --dataset={dataset}')
  if not Path(source_dir).is_dir():
    raise SourceError(f'{source_dir}: no such directory')
  source = _check_names(family(source_dir, **options))
  missing = [split for split in SPLITS if split not in source.splits]
  if missing and source.splits:
    source.notes.append(f'{source_dir}: nothing for {" and ".join(missing)}')

  source = source._replace(exif=exif, page=page)
  if unlabelled == 'ignore':
    return source
  filled = lambda ids: np.where(ids < 0, ids.max() + 1, ids)
  load = lambda item: list(map(filled, source.load_id_maps(item)))
  return source._replace(load_id_maps=load)  # as in the official code


def _check_names(source: Source) -> Source:
  """Leaves out items whose names are no text, or that are there already."""
  splits, places = {}, {}
  for split, items in source.splits.items():
    kept = {}
    for item in items:
      place = os.path.realpath(item.photo)
      if not item.name.isprintable():  # bytes that are not UTF-8, line breaks
        problem = f'{str(item.photo)!a}: rename it, in plain text'
      elif item.name in kept:
        problem = f'{item.photo}: another photo of {split} has its name'
      elif (first := places.setdefault(place, split)) != split:
        problem = f'{item.photo}: is in {first} already; keep it in one split'
      else:
        kept[item.name] = item
        continue
      source.problems.append(problem)
    if kept:
      splits[split] = list(kept.values())
  return source._replace(splits=splits)
