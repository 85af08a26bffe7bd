"""Segments as polygons: GeoJSON, labelme, COCO.

Coordinates are pixels from the photo's top left corner: the pixel in row y and
column x is the square from (x, y) to (x + 1, y + 1). So polygons go along the
pixels' sides, and hold exactly the pixels whose centres lie within them.
"""

from typing import Any

import cv2
import numpy as np
from scipy import ndimage
from skimage import measure

# The outer ring of a piece of a segment, and those of its holes: int [N, 2].
Piece = list[np.ndarray]
_INSET = 0.01  # of labelme's polygons, see there


def trace(id_map: np.ndarray) -> list[list[Piece]]:
  """Traces the sides of pixels around each segment.

  Args:
    id_map: int [H, W] with the ids 0, ..., K - 1.

  Returns:
    For each segment its pieces, whose pixels share sides; of each piece its
    rings (x, y), without three points in a line, the outer one first. With x to
    the right and y downwards, the segment lies to the right of every ring.
  """
  segments = [[] for _ in range(int(id_map.max()) + 1)]
  pieces = measure.label(id_map, background=-1, connectivity=1)
  for number, box in enumerate(ndimage.find_objects(pieces), 1):
    inside = pieces[box] == number
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    corner = box[1].start, box[0].start
    # OpenCV goes through the centres of pixels. Of a picture twice as large,
    # whose pixels each touch one corner of the original ones, these are that.
    twice = inside.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, tree = cv2.findContours(
      twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    # Of one piece there is one outer ring, whose parent is -1.
    order = np.argsort(tree[0, :, 3] >= 0, kind='stable')
    rings = [_simplify((found[k].reshape(-1, 2) + 1) // 2) for k in order]
    piece = [
      (ring if (_area(ring) > 0) == (k == 0) else ring[::-1]) + corner
      for k, ring in enumerate(rings)
    ]
    segments[id_map[box][y, x]].append(piece)
  return segments


def _simplify(ring):
  """Leaves out points where the ring, int [N, 2], does not turn."""
  ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
  before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, 0) - ring
  return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _area(ring):
  (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
  return (x * next_y - next_x * y).sum() / 2


def geojson(
  segments: list[list[Piece]], described: list[dict[str, Any]]
) -> dict[str, Any]:
  """Returns a FeatureCollection, as QuPath and programs for maps read it.

  Each segment, as from `trace`, with its properties, is one Feature: a Polygon,
  or a MultiPolygon if it lies in several pieces, whose holes are inner rings.
  """
  features = []
  for pieces, properties in zip(segments, described, strict=True):
    rings = [[[*r.tolist(), r[0].tolist()] for r in piece] for piece in pieces]
    one = len(rings) == 1
    geometry = {
      'type': 'Polygon' if one else 'MultiPolygon',
      'coordinates': rings[0] if one else rings,
    }
    features.append(
      {'type': 'Feature', 'geometry': geometry, 'properties': properties}
    )
  return {'type': 'FeatureCollection', 'features': features}


def coco(pieces: list[Piece]) -> list[list[float]]:
  """Returns a segment as COCO has it, a list x, y, x, y, ... for each piece."""
  return [_joined(piece).ravel().tolist() for piece in pieces]


def labelme(
  segments: list[list[Piece]], image_path: str, size: tuple[int, int]
) -> dict[str, Any]:
  """Returns what labelme opens: a polygon for each piece, a group a segment.

  Labelme draws the pixels that a corner lies in; on the sides of pixels these
  would be the next ones. So corners lie a hundredth of a pixel within, and what
  labelme draws is the segment.

  Args:
    segments: as from `trace`; group_id is 1 for the first.
    image_path: of the photo, relative to the file.
    size: height and width of the photo.
  """
  shape = {'label': 'entity', 'shape_type': 'polygon', 'flags': {}}
  shapes = [
    {**shape, 'group_id': number, 'points': points.round(2).tolist()}
    for number, pieces in enumerate(segments, 1)
    for points in (_inset(_joined(piece)) for piece in pieces)
  ]
  return {
    'version': '5.5.0',
    'flags': {},
    'shapes': shapes,
    'imagePath': image_path,
    'imageData': None,
    'imageHeight': size[0],
    'imageWidth': size[1],
  }


def _joined(piece):
  """One ring float [N, 2]: each hole is entered and left by one way.

  From the upper left corner of the hole the way leads left, through the centres
  of pixels of the piece, to the ring so far; it holds no area.
  """
  ring = piece[0].astype(float)
  for hole in sorted(piece[1:], key=lambda hole: hole[:, 0].min()):
    first = np.lexsort((hole[:, 1], hole[:, 0]))[0]
    x, y = hole[first] + (0, 0.5)
    (x0, y0), (_, y1) = ring.T, np.roll(ring, -1, axis=0).T
    met = (np.minimum(y0, y1) < y) & (y < np.maximum(y0, y1)) & (x0 < x)
    at = int(np.where(met, x0, -1).argmax())
    way = np.array([(ring[at, 0], y), (x, y)])
    around = np.roll(hole, -first - 1, axis=0)
    added = np.concatenate([way, around, way[::-1]])
    ring = np.insert(ring, at + 1, added, axis=0)
  return ring


def _inset(ring):
  """Moves the sides of a ring to the right of where they lead."""
  after = np.sign(np.roll(ring, -1, axis=0) - ring)
  before = np.roll(after, 1, axis=0)
  right = lambda along: np.stack([-along[:, 1], along[:, 0]], axis=1)
  inside = ring + _INSET * np.sign(right(before) + right(after))
  # Where the ring touches itself it goes from one pixel to another that shares
  # but a corner with it; the pixel in which it would turn left is of another.
  _, which, counts = np.unique(
    ring, axis=0, return_inverse=True, return_counts=True
  )
  left = before[:, 0] * after[:, 1] < before[:, 1] * after[:, 0]
  twice = left & (counts[which.ravel()] > 1)
  points = np.repeat(inside, 1 + twice, axis=0)
  first = np.flatnonzero(twice) + np.arange(twice.sum())
  points[first] = (ring + _INSET * (right(before) - before))[twice]
  points[first + 1] = (ring + _INSET * (right(after) + after))[twice]
  return points
