"""What becomes of a segmentation on disk: pictures, ids, JSON; each file whole.

Of photo NAME, in the output directory:

  NAME.json             always, and last: its segments and how it was made
  NAME_labels.png       at the photo's size, 16 bits: segment id + 1, for 0 is
                        'unlabelled' in the labels that bitseg_jax.prepare reads
  NAME_overlay.png      the segments in colour over the photo
  NAME_contours.png     their borders alone over the photo
  NAME_uncertainty.png  where it is most uncertain, above a bar of the colours
  NAME_samples.png      up to ten samples side by side; and NAME_sample_N.png,
                        each of them as labels
  NAME.geojson          the segments as polygons in pixels, see geojson.py
  panoptic/NAME.png     the same ids in COCO's colours, for panoptic.json

and of all photos: panoptic.json (COCO panoptic), rle.json (COCO instances with
run lengths and scores), sheet_N.png (overlays) and summary.json. All pictures
that are not labels are for people, of at most 1024 pixels.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from bitseg_jax.app import geojson, records
from bitseg_jax.app.answer import Segmentation
from bitseg_jax.data import rle, transforms
from bitseg_jax.evaluation import pictures
from bitseg_jax.runs.log import whole_file, write_json

LONGEST_SIDE = 1024  # of pictures: in larger ones contours are too thin to see
SHOWN_SAMPLES = 10
_SHEET_COLUMNS, _SHEET_ROWS, _SHEET_CELL = 6, 5, 200
_MOST_IDS = 65535


def write(
  output: str | Path,
  name: str,
  photo: np.ndarray,
  result: Segmentation,
  kinds: Sequence[str],
  about: records.Record,
) -> None:
  """Writes the files of one photo.

  Args:
    output: directory, made if it is not there.
    name: what the file names begin with, relative to it.
    photo: uint8 [H, W, 3].
    result: its segmentation.
    kinds: some of records.KINDS.
    about: what NAME.json is to say besides size and segments.

  Raises:
    ValueError: there are more segments than 16 bits can number.
  """
  output, id_map = Path(output), result.id_map
  if id_map.max() >= _MOST_IDS:
    raise ValueError(
      f'{id_map.max() + 1} segments, more than 16 bits can number; use larger '
      'tiles'
    )
  if 'labels' in kinds:
    pictures.save_png(_labels(id_map), output / f'{name}_labels.png')
  if 'panoptic' in kinds:
    pictures.save_png(_panoptic(id_map), output / 'panoptic' / f'{name}.png')
  if 'samples' in kinds:
    for n in range(result.num_samples):
      path = output / f'{name}_sample_{n + 1}.png'
      pictures.save_png(_labels(result.sample(n)), path)
  if 'geojson' in kinds:
    geojson.write(output / f'{name}.geojson', id_map, result.confidence)
  _write_pictures(output / name, photo, result, kinds)
  (output / name).parent.mkdir(parents=True, exist_ok=True)
  height, width = id_map.shape
  record = {
    **about,
    'width': width,
    'height': height,
    'segments': _segments(result, 'rle' in kinds),
  }
  write_json(records.path(output, name), record)


def write_panoptic(output: str | Path, names: Sequence[str]) -> None:
  """Writes panoptic.json of photos whose NAME.json and panoptic PNG exist."""

  def annotation(image_id, name, record):
    infos = [
      {
        'id': segment['id'],
        'category_id': 1,
        'iscrowd': 0,
        'area': segment['area'],
        'bbox': segment['bbox'],
      }
      for segment in record['segments']
    ]
    yield {
      'image_id': image_id,
      'file_name': f'{name}.png',
      'segments_info': infos,
    }

  _write_coco(Path(output), 'panoptic.json', names, annotation)


def write_rle(
  output: str | Path, names: Sequence[str], file: str = 'rle.json'
) -> None:
  """Writes rle.json of photos whose NAME.json has run lengths."""
  numbers = itertools.count(1)

  def annotations(image_id, name, record):
    for segment in record['segments']:
      yield {
        'id': next(numbers),
        'image_id': image_id,
        'category_id': 1,
        'iscrowd': 0,
        'score': segment['confidence'],
        'segmentation': segment['segmentation'],
        'area': segment['area'],
        'bbox': segment['bbox'],
      }

  _write_coco(Path(output), file, names, annotations)


def write_sheets(output: str | Path, names: Sequence[str]) -> None:
  """Writes sheet_1.png, ...: the overlays of photos, some tens a page."""
  output = Path(output)
  per_page = _SHEET_COLUMNS * _SHEET_ROWS
  for number, start in enumerate(range(0, len(names), per_page), 1):
    cells = []
    for name in names[start : start + per_page]:
      with Image.open(output / f'{name}_overlay.png') as image:
        # Twice the cell: the gallery scales the rest.
        image.thumbnail((2 * _SHEET_CELL,) * 2)
        picture = np.asarray(image)
      count = len(records.read(output, name)['segments'])
      # A file name may hold line breaks, and bytes that are no text.
      shown = (c if c.isprintable() else '?' for c in Path(name).name)
      cells.append((picture, f'{"".join(shown)}: {count}'))
    rows = [
      cells[i : i + _SHEET_COLUMNS]
      for i in range(0, len(cells), _SHEET_COLUMNS)
    ]
    path = output / f'sheet_{number}.png'
    pictures.gallery(rows, path, cell_size=_SHEET_CELL)


def _labels(id_map):
  return (id_map + 1).astype(np.uint16)


def _panoptic(id_map):
  """COCO's colours R + 256 G + 65536 B of the labels: 0 would be void."""
  labels = id_map + 1
  return np.stack([labels % 256, labels // 256, 0 * labels], -1).astype(
    np.uint8
  )


def _segments(result, with_rle):
  """What NAME.json says of each segment; its id is that in the labels."""
  areas = np.bincount(result.id_map.ravel())
  boxes = ndimage.find_objects(result.id_map + 1)
  segments = [
    {
      'id': k + 1,
      'area': int(areas[k]),
      'bbox': [
        columns.start,
        rows.start,
        columns.stop - columns.start,
        rows.stop - rows.start,
      ],
      'confidence': round(float(result.confidence[k]), 4),
    }
    for k, (rows, columns) in enumerate(boxes)
  ]
  if with_rle:
    for segment, encoded in zip(
      segments, rle.encode(result.id_map), strict=True
    ):
      segment['segmentation'] = encoded
  return segments


def _write_pictures(stem, photo, result, kinds):
  """Those for people; `stem` is what their paths begin with."""
  size = photo.shape[:2]
  if max(size) > LONGEST_SIDE:
    size = transforms.fit_longest_side(*size, LONGEST_SIDE)
  photo = transforms.resize_image(photo, size)
  id_map = transforms.resize_ids(result.id_map, size)
  doubt = doubt_picture(photo, result)
  if 'overlay' in kinds or 'sheet' in kinds:
    pictures.save_png(pictures.overlay(photo, id_map), f'{stem}_overlay.png')
  if 'contours' in kinds:
    picture = pictures.contours(photo, id_map)
    pictures.save_png(picture, f'{stem}_contours.png')
  if 'uncertainty' in kinds:
    pictures.save_png(doubt, f'{stem}_uncertainty.png')
  if 'samples' in kinds:
    colors = pictures.entity_colors(id_map)
    cells = [
      (photo, 'photo'),
      (pictures.colorize(id_map, colors), 'result'),
      (doubt, 'uncertainty: red = unsure'),
    ]
    for n in range(min(result.num_samples, SHOWN_SAMPLES)):
      sample = transforms.resize_ids(result.sample(n), size)
      matched = pictures.match_ids(id_map, sample)
      cells.append((pictures.colorize(matched, colors), f'sample {n + 1}'))
    rows = [cells[i : i + 4] for i in range(0, len(cells), 4)]
    pictures.gallery(rows, f'{stem}_samples.png', cell_size=240)


def doubt_picture(photo: np.ndarray, result: Segmentation) -> np.ndarray:
  """Paints the uncertainty of a segmentation, see pictures.doubt.

  Args:
    photo: uint8 [h, w, 3], perhaps smaller than what was segmented.
    result: the segmentation.
  """
  # Shrunk before it is painted: large photos need as little as small ones.
  shrunk = Image.fromarray(result.uncertainty).resize(
    photo.shape[1::-1], Image.Resampling.BOX
  )
  return pictures.doubt(photo, np.asarray(shrunk))


def _write_coco(output, file, names, annotate):
  """Writes images, annotations and the one category, photo by photo."""

  def images(image_id, name, record):
    photo, own = Path(record['photo']), Path(name).name
    # Of two photos of one name the second is called NAME.jpg~2.
    clashes = own.startswith(f'{photo.name}~')
    file_name = own + photo.suffix if clashes else photo.name
    yield {
      'id': image_id,
      'file_name': str(Path(name).with_name(file_name)),
      'width': record['width'],
      'height': record['height'],
    }

  def lines(describe):
    for image_id, name in enumerate(names, 1):
      for item in describe(image_id, name, records.read(output, name)):
        yield json.dumps(item)

  with whole_file(output / file) as out:
    for key, describe in (('images', images), ('annotations', annotate)):
      out.write('{' if key == 'images' else '')
      out.write(f'"{key}": [')
      for number, line in enumerate(lines(describe)):
        out.write(('\n' if number == 0 else ',\n') + line)
      out.write('],\n')
    category = {
      'id': 1,
      'name': 'entity',
      'supercategory': 'entity',
      'isthing': 1,
    }
    out.write(f'"categories": [{json.dumps(category)}]}}\n')
