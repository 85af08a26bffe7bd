"""Reads BSDS500 as its authors ship it (BSR/BSDS500/data)."""

import io
from pathlib import Path

import numpy as np
import scipy.io

from bitseg_jax.data import outside
from bitseg_jax.data.outside import SourceError
from bitseg_jax.data.source import SPLITS, Item, Source


def open_source(source_dir: str | Path) -> Source:
  """Lists the photos and annotations of BSDS500.

  Args:
    source_dir: holds images/SPLIT/*.jpg and groundTruth/SPLIT/*.mat, where
      SPLIT is train, val or test; not all three are needed.

  Returns:
    The source, with 4 to 9 annotators per photo.
  """
  root = Path(source_dir)
  source = Source({}, load_id_maps, problems=[], notes=[])
  seen: dict[str, str] = {}
  for split in SPLITS:
    folders = root / 'images' / split, root / 'groundTruth' / split
    # iterdir raises if the folder may not be read; glob would find nothing.
    photos, labels = (
      {p.stem for p in folder.iterdir() if p.suffix == suffix}
      if folder.is_dir()
      else set()
      for folder, suffix in zip(folders, ('.jpg', '.mat'), strict=True)
    )
    for name in sorted(n for n in photos | labels if n[0] != '.'):
      photo, label = folders[0] / f'{name}.jpg', folders[1] / f'{name}.mat'
      if name not in labels:
        source.problems.append(f'{photo}: no {label} for it')
      elif name not in photos:
        source.problems.append(f'{label}: no {photo} for it')
      elif seen.setdefault(name, split) != split:
        source.problems.append(
          f'{photo}: another photo of {seen[name]} has its name'
        )
      else:
        item = Item(name, photo, (label,))
        source.splits.setdefault(split, []).append(item)
  if not source.splits:
    raise SourceError(
      f'{root}: no images/train/*.jpg with groundTruth/train/*.mat (nor val, '
      'nor test); --source wants the directory BSR/BSDS500/data'
    )
  return source


def load_id_maps(item: Item) -> list[np.ndarray]:
  """Reads the id map of each annotator: the file's id - 1, so -1 is none."""
  path = item.labels[0]
  content = io.BytesIO(outside.read_bytes(path))
  with outside.named(path, 'not a whole .mat file', 'download it again'):
    found = scipy.io.loadmat(content, variable_names=['groundTruth'])
    cells = found['groundTruth'].ravel()
    id_maps = [cell['Segmentation'][0, 0] for cell in cells]
  return [outside.check_ids(ids, path) - 1 for ids in id_maps]
