"""Reads BSDS500 as its authors ship it (BSR/BSDS500/data)."""

import io
from pathlib import Path

import numpy as np
import scipy.io

from bitseg_jax.data import outside
from bitseg_jax.data.source import SPLITS, Item, Source


def open_source(source_dir: str | Path) -> Source:
  """Lists the photos and the 4 to 9 annotations of each.

  Args:
    source_dir: holds images/SPLIT/*.jpg and groundTruth/SPLIT/*.mat, where
      SPLIT is train, val or test; not all three are needed.
  """
  root = Path(source_dir)
  source = Source({}, load_id_maps, problems=[], notes=[])
  for split in SPLITS:
    photos = _listed(root / 'images' / split, '.jpg')
    labels = _listed(root / 'groundTruth' / split, '.mat')
    for name, photo in photos.items():
      if name in labels:
        item = Item(name, photo, (labels[name],))
        source.splits.setdefault(split, []).append(item)
    for name in sorted(photos.keys() ^ labels.keys()):
      path = photos.get(name) or labels[name]
      other = 'annotation' if name in photos else 'photo'
      source.problems.append(f'{path}: no {other} for it')
  if not source.splits:
    raise outside.SourceError(
      f'{root}: no images/train/*.jpg with groundTruth/train/*.mat (nor val, '
      'nor test); --source wants the directory BSR/BSDS500/data'
    )
  return source


def _listed(folder, suffix):
  # iterdir raises if the folder may not be read; glob would find nothing.
  paths = sorted(folder.iterdir()) if folder.is_dir() else []
  return {p.stem: p for p in paths if p.suffix == suffix and p.name[0] != '.'}


def load_id_maps(item: Item) -> list[np.ndarray]:
  """Reads the id map of each annotator: the file's id - 1, so -1 is none."""
  path = item.labels[0]
  content = io.BytesIO(outside.read_bytes(path))
  with outside.named(path, 'not a whole .mat file', 'download it again'):
    found = scipy.io.loadmat(content, variable_names=['groundTruth'])
    cells = found['groundTruth'].ravel()
    id_maps = [cell['Segmentation'][0, 0] for cell in cells]
  return [outside.check_ids(ids, path) - 1 for ids in id_maps]
