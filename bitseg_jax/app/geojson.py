"""Segmentations as GeoJSON polygons, for QuPath and programs for maps.

Coordinates are pixels from the photo's top left corner: the pixel in row y and
column x is the square from (x, y) to (x + 1, y + 1). So polygons go along the
pixels' sides, and hold exactly the pixels whose centres lie within them.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from bitseg_jax.runs.log import whole_file


def write(path: str | Path, id_map: np.ndarray, scores: np.ndarray) -> None:
  """Writes a segmentation to a file that appears whole or not at all.

  Args:
    path: the file; missing folders are made.
    id_map, scores: as in `features`.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with whole_file(path) as file:
    file.write(json.dumps(features(id_map, scores), separators=(',', ':')))
    file.write('\n')


def features(id_map: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
  """Describes each segment by its outlines.

  Args:
    id_map: int [H, W] with the ids 0, ..., K - 1.
    scores: float [K], confidence in each segment.

  Returns:
    A GeoJSON FeatureCollection with one Feature for each segment: a Polygon, or
    a MultiPolygon if it lies in several pieces, whose holes are inner rings.
    Its properties are id (id + 1, as in the labels), area in pixels, and score.
  """
  found = []
  for k, box in enumerate(ndimage.find_objects(id_map + 1)):
    inside = id_map[box] == k
    pieces = outlines(inside, (box[1].start, box[0].start))
    single = len(pieces) == 1
    found.append(
      {
        'type': 'Feature',
        'geometry': {
          'type': 'Polygon' if single else 'MultiPolygon',
          'coordinates': pieces[0] if single else pieces,
        },
        'properties': {
          'id': k + 1,
          'area': int(np.count_nonzero(inside)),
          'score': round(float(scores[k]), 4),
        },
      }
    )
  return {'type': 'FeatureCollection', 'features': found}


def outlines(
  inside: np.ndarray, corner: tuple[int, int] = (0, 0)
) -> list[list[list[list[int]]]]:
  """Traces the sides of pixels around a region.

  Args:
    inside: bool [h, w], the region.
    corner: (x, y) of its top left pixel's corner.

  Returns:
    A polygon for each piece whose pixels share sides: its rings, the outer one
    first, each closed and without three points in a line. The outer ones run
    as GeoJSON asks for, if y pointed upwards.
  """
  pieces, count = ndimage.label(inside)  # those that share sides
  return [
    _rings(
      pieces[box] == n, (corner[0] + box[1].start, corner[1] + box[0].start)
    )
    for n, box in zip(
      range(1, count + 1), ndimage.find_objects(pieces), strict=True
    )
  ]


def _rings(piece, corner):
  """The outer ring and those of the holes of one piece.

  OpenCV goes through the centres of pixels. Of a picture twice as large, whose
  pixels each touch one corner of the original ones, these are that corner.
  """
  twice = piece.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
  found, tree = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
  # Of one piece there is one outer ring, whose parent is -1.
  order = np.argsort(tree.reshape(-1, 4)[:, 3] >= 0, kind='stable')
  rings = [
    _simplify((found[k].reshape(-1, 2).astype(np.int64) + 1) // 2)
    for k in order
  ]
  return [
    (np.concatenate([ring, ring[:1]])[:: _turn(ring, k == 0)] + corner).tolist()
    for k, ring in enumerate(rings)
  ]


def _simplify(ring):
  """Leaves out points where the ring, int [N, 2], does not turn."""
  moved = np.any(ring != np.roll(ring, 1, axis=0), axis=1)
  ring = ring[moved]
  before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, 0) - ring
  turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
  return ring[turns]


def _turn(ring, outer):
  """1 if the ring turns as it should, -1 if it is to be reversed."""
  (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
  return 1 if ((x * next_y - next_x * y).sum() > 0) == outer else -1
