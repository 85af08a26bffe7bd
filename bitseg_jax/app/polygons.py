"""Segments as polygons: GeoJSON, labelme, COCO.

Coordinates are pixels from the photo's top left corner: the pixel in row y and
column x is the square from (x, y) to (x + 1, y + 1). Polygons go along the
pixels' sides and hold exactly the pixels whose centres lie within them.
"""

from typing import Any

import cv2
import numpy as np
from scipy import ndimage
from skimage import measure

# The outer ring of a piece of a segment, and those of its holes: float [N, 2].
Piece = list[np.ndarray]


def trace(id_map: np.ndarray, inset: bool = False) -> list[list[Piece]]:
  """Traces the borders of each segment.

  Args:
    id_map: int [H, W] with the ids 0, ..., K - 1.
    inset: whether rings lie a quarter of a pixel within the segment, for
      programs that also draw the pixels that a ring goes through.

  Returns:
    For each segment its pieces, whose pixels share sides; of each piece its
    rings (x, y), the outer one first. With x to the right and y downwards, the
    segment lies to the right of every ring. Without inset they are int and have
    no three points in a line.
  """
  segments = [[] for _ in range(int(id_map.max()) + 1)]
  pieces = measure.label(id_map, background=-1, connectivity=1)
  for number, box in enumerate(ndimage.find_objects(pieces), 1):
    inside = pieces[box] == number
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    corner = box[1].start, box[0].start
    # OpenCV goes through the centres of pixels: in a picture twice as large, a
    # quarter of an original pixel from its corners.
    twice = inside.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, tree = cv2.findContours(
      twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    # Of one piece there is one outer ring, whose parent is -1. OpenCV has the
    # segment to the left.
    order = np.argsort(tree[0, :, 3] >= 0, kind='stable')
    rings = [found[k].reshape(-1, 2)[::-1] for k in order]
    outline = lambda r: (r + 0.5) / 2 if inset else _simplify((r + 1) // 2)
    segments[id_map[box][y, x]].append([corner + outline(r) for r in rings])
  return segments


def _simplify(ring):
  ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
  before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, 0) - ring
  return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def geojson(
  id_map: np.ndarray, segments: list[dict[str, Any]]
) -> dict[str, Any]:
  """Returns a FeatureCollection, as QuPath and programs for maps read it.

  Each segment, with its id, area and confidence, is one Feature: a Polygon, or
  a MultiPolygon if it lies in several pieces, whose holes are inner rings.
  """
  features = []
  for pieces, segment in zip(trace(id_map), segments, strict=True):
    rings = [[[*r.tolist(), r[0].tolist()] for r in piece] for piece in pieces]
    geometry = {'type': 'MultiPolygon', 'coordinates': rings}
    if len(rings) == 1:
      geometry = {'type': 'Polygon', 'coordinates': rings[0]}
    properties = {key: segment[key] for key in ('id', 'area')}
    properties['score'] = segment['confidence']
    features.append(
      {'type': 'Feature', 'geometry': geometry, 'properties': properties}
    )
  return {'type': 'FeatureCollection', 'features': features}


def coco(id_map: np.ndarray) -> list[list[list[float]]]:
  """Returns segments as COCO has them, a list x, y, ... for each piece."""
  return [
    [_joined(piece).ravel().tolist() for piece in pieces]
    for pieces in trace(id_map)
  ]


def labelme(id_map: np.ndarray, image_path: str) -> dict[str, Any]:
  """Returns what labelme opens: a polygon for each piece, a group a segment.

  Args:
    id_map: as for `trace`; group_id is 1 for the first segment.
    image_path: of the photo, relative to the file.
  """
  shape = {'label': 'entity', 'shape_type': 'polygon', 'flags': {}}
  return {
    'version': '5.5.0',
    'flags': {},
    'shapes': [
      {**shape, 'group_id': number, 'points': _joined(piece).tolist()}
      for number, pieces in enumerate(trace(id_map, inset=True), 1)
      for piece in pieces
    ],
    'imagePath': image_path,
    'imageData': None,
    'imageHeight': id_map.shape[0],
    'imageWidth': id_map.shape[1],
  }


def _joined(piece):
  """One ring float [N, 2]: each hole is entered and left by one way.

  From the left side of the hole the way leads left, through the centres of
  pixels of the piece, to the ring so far; it holds no area.
  """
  ring = piece[0].astype(float)
  for hole in sorted(piece[1:], key=lambda hole: hole[:, 0].min()):
    first = np.lexsort((hole[:, 1], hole[:, 0]))[0]
    x, y = hole[first, 0], np.floor(hole[first, 1]) + 0.5
    (x0, y0), (_, y1) = ring.T, np.roll(ring, -1, axis=0).T
    met = (np.minimum(y0, y1) < y) & (y < np.maximum(y0, y1)) & (x0 < x)
    at = int(np.where(met, x0, -1).argmax())
    way = np.array([(ring[at, 0], y), (x, y)])
    around = np.roll(hole, -first - 1, axis=0)
    added = np.concatenate([way, around, way[::-1]])
    ring = np.insert(ring, at + 1, added, axis=0)
  return ring
