"""What becomes of a segmentation on disk: pictures, ids, JSON; each file whole.

KINDS lists what there is of each photo. Beside it stands NAME.json, written
last: its segments, how it was made, and which files it has. Of all photos
together there are TOGETHER. Pictures for people are of at most 1024 pixels.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

from bitseg_jax.app import polygons
from bitseg_jax.app.answer import Segmentation
from bitseg_jax.data import rle, transforms
from bitseg_jax.data.outside import SourceError
from bitseg_jax.evaluation import pictures
from bitseg_jax.runs.log import whole_file, write_json

KINDS = {
  'labels': "NAME_labels.png: segment id + 1 at the photo's size, in 16 bits; "
  'NAME_labels.tif in 32 bits where there are more, or if asked',
  'overlay': 'NAME_overlay.png: the segments in colour over the photo',
  'contours': 'NAME_contours.png: their borders alone over the photo',
  'uncertainty': 'NAME_uncertainty.png: where the answer is most uncertain',
  'samples': 'NAME_sample_N.png: each of the samples as labels',
  'sheet': 'NAME_sheet.png: photo, overlay, contours, uncertainty and up to '
  'ten samples on one sheet',
  'panoptic': 'panoptic.json and panoptic/NAME.png: COCO panoptic',
  'rle': 'rle.json: COCO instances with run lengths and confidence',
  'coco': 'coco.json: COCO instances with polygons and confidence',
  'geojson': 'NAME.geojson: polygons, for QuPath and programs for maps',
  'labelme': 'labelme/NAME.json: polygons that labelme opens',
}
DEFAULT = 'labels', 'overlay', 'uncertainty'
TOGETHER = 'summary.json', 'panoptic.json', 'rle.json', 'coco.json'
LONGEST_SIDE = 1024  # of pictures: in larger ones contours are too thin to see
_CATEGORY = {'id': 1, 'name': 'entity', 'supercategory': 'entity', 'isthing': 1}
_MASKS = {'coco': 'polygons', 'rle': 'segmentation'}  # of segments in NAME.json
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Which files are written, and where."""

  folder: Path  # made if it is not there
  kinds: Sequence[str] = DEFAULT  # of KINDS
  label_format: str = 'png'  # more ids than 16 bits hold make it tif

  def __post_init__(self):
    for kind in set(self.kinds) - KINDS.keys():
      raise ValueError(f'--outputs has {kind!r}; choose from {",".join(KINDS)}')


def write(
  outputs: Outputs,
  name: str,
  photo: np.ndarray,
  result: Segmentation,
  about: Record,
) -> Record:
  """Writes the files of one photo.

  Args:
    outputs: which, and where.
    name: what the file names begin with, relative to the folder.
    photo, result: uint8 [H, W, 3], and its segmentation.
    about: what NAME.json is to say besides size, segments and files.

  Returns:
    What NAME.json says.
  """
  folder, kinds, id_map = outputs.folder, set(outputs.kinds), result.id_map
  height, width = id_map.shape
  written = {kind: [] for kind in outputs.kinds}

  def path(kind, file):
    written[kind].append(file)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    return folder / file

  def save_labels(kind, stem, ids):
    if outputs.label_format == 'png' and ids.max() < 65535:
      picture = (ids + 1).astype(np.uint16)
      pictures.save_png(picture, path(kind, f'{stem}.png'))
    else:
      with whole_file(path(kind, f'{stem}.tif'), 'wb') as file:
        labels = (ids + 1).astype(np.uint32)
        tifffile.imwrite(file, labels, compression='zlib')

  if 'labels' in kinds:
    save_labels('labels', f'{name}_labels', id_map)
  if 'samples' in kinds:
    for n in range(result.num_samples):
      save_labels('samples', f'{name}_sample_{n + 1}', result.sample(n))
  if 'panoptic' in kinds:
    ids = np.stack([id_map + 1] * 3, axis=-1) >> (0, 8, 16)
    panoptic = path('panoptic', f'panoptic/{name}.png')
    pictures.save_png((ids & 255).astype(np.uint8), panoptic)

  areas = np.bincount(id_map.ravel()).tolist()
  segments = [
    {
      'id': k + 1,
      'area': areas[k],
      'bbox': [x.start, y.start, x.stop - x.start, y.stop - y.start],
      'confidence': round(float(result.confidence[k]), 4),
    }
    for k, (y, x) in enumerate(ndimage.find_objects(id_map + 1))
  ]
  if 'geojson' in kinds:
    with whole_file(path('geojson', f'{name}.geojson')) as file:
      features = polygons.geojson(id_map, segments)
      file.write(json.dumps(features, separators=(',', ':')) + '\n')
  if 'labelme' in kinds:
    labelme = path('labelme', f'labelme/{name}.json')
    source = os.path.relpath(about['photo'], labelme.parent)
    write_json(labelme, polygons.labelme(id_map, source))
  for kind, encode in ('coco', polygons.coco), ('rle', rle.encode):
    if kind in kinds:
      for segment, encoded in zip(segments, encode(id_map), strict=True):
        segment[_MASKS[kind]] = encoded

  if kinds & {'overlay', 'contours', 'uncertainty', 'sheet'}:
    # Shrunk before they are painted: large photos need as little as small ones.
    size = photo.shape[:2]
    size = transforms.fit_longest_side(*size, min(max(size), LONGEST_SIDE))
    photo = transforms.resize_image(photo, size)
    small = transforms.resize_ids(id_map, size)
    doubt = Image.fromarray(result.uncertainty)
    doubt = np.asarray(doubt.resize(size[::-1], Image.Resampling.BOX))
    colors = pictures.entity_colors(small)
    painted = {
      'overlay': pictures.overlay(photo, small, colors=colors),
      'contours': pictures.contours(photo, small),
      'uncertainty': pictures.doubt(photo, doubt),
    }
    for kind in painted.keys() & kinds:
      pictures.save_png(painted[kind], path(kind, f'{name}_{kind}.png'))
  if 'sheet' in kinds:
    answer = pictures.colorize(small, colors)
    cells = [(photo, 'photo'), (answer, f'segments: {len(segments)}')]
    cells += [(picture, kind) for kind, picture in painted.items()]
    for n in range(min(10, result.num_samples)):
      ids = transforms.resize_ids(result.sample(n), size)
      sample = pictures.colorize(pictures.match_ids(small, ids), colors)
      cells.append((sample, f'sample {n + 1}'))
    rows = [cells[i : i + 5] for i in range(0, len(cells), 5)]
    pictures.gallery(rows, path('sheet', f'{name}_sheet.png'), cell_size=400)

  record = {**about, 'width': width, 'height': height}
  record |= {'segments': segments, 'files': written}
  (folder / name).parent.mkdir(parents=True, exist_ok=True)
  write_json(folder / f'{name}.json', record)
  return record


def write_together(outputs: Outputs, names: Sequence[str]) -> None:
  """Writes those of panoptic.json, rle.json and coco.json that are wanted.

  Names are of photos whose files of these kinds are written.
  """
  for kind in ('panoptic', 'rle', 'coco'):
    if kind not in outputs.kinds:
      continue
    images, numbers, separator = [], itertools.count(1), '\n'
    with whole_file(outputs.folder / f'{kind}.json') as out:
      # Piece by piece, for all annotations may not fit in memory.
      out.write('{"annotations": [')
      for image_id, name in enumerate(names, 1):
        record = read_record(outputs.folder, name)
        photo = Path(record['photo'])  # a name may already end in its suffix
        file_name = name + photo.suffix * (Path(name).name != photo.name)
        sizes = {key: record[key] for key in ('width', 'height')}
        images.append({'id': image_id, 'file_name': file_name, **sizes})
        entities = [
          {'category_id': 1, 'iscrowd': 0}
          | {key: segment[key] for key in ('id', 'area', 'bbox')}
          for segment in record['segments']
        ]
        annotations = [{'file_name': f'{name}.png', 'segments_info': entities}]
        if kind != 'panoptic':
          annotations = entities
          for entity, segment in zip(entities, record['segments'], strict=True):
            entity['id'] = next(numbers)
            entity['score'] = segment['confidence']
            entity['segmentation'] = segment[_MASKS[kind]]
        for annotation in annotations:
          out.write(separator + json.dumps({'image_id': image_id} | annotation))
          separator = ',\n'
      out.write('],\n"images": [' + ',\n'.join(map(json.dumps, images)))
      out.write(f'],\n"categories": [{json.dumps(_CATEGORY)}]}}\n')


def read_record(folder: Path, name: str) -> Record | None:
  """Reads NAME.json; None where there is none that can be read.

  Raises SourceError if it was not written by this package.
  """
  file = folder / f'{name}.json'
  try:
    record = json.loads(file.read_bytes())
  except (OSError, ValueError):
    return None
  ours = isinstance(record, dict) and 'made_with' in record
  if not ours or not isinstance(record.get('files', {}), dict):
    raise SourceError(
      f'{file} was not written by predict and would be overwritten; choose '
      'another --output'
    )
  return record


def remove(folder: Path, name: str, record: Record | None) -> None:
  """Removes the files of a photo that was segmented otherwise before.

  With them go the files of all photos together, which tell of it, too. Where
  there is no record, samples are removed, of a run that was killed before it
  wrote one.
  """
  if record is not None:
    own = re.compile(f'(panoptic/|labelme/)?{re.escape(name)}[._][^/]*')
    listed = itertools.chain(*record.get('files', {}).values())
    for file in (*filter(own.fullmatch, listed), f'{name}.json', *TOGETHER):
      (folder / file).unlink(missing_ok=True)
  for suffix in 'png', 'tif':
    with contextlib.suppress(FileNotFoundError):
      for n in itertools.count(1):
        (folder / f'{name}_sample_{n}.{suffix}').unlink()
