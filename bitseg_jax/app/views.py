"""Which parts of photos the model sees, and one answer from what it draws.

It sees a photo whole, or tile by tile. Close-ups are five parts of either that
it sees as well, in more detail; their samples join the consensus.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bitseg_jax.app import answer, specks, steering, tiles
from bitseg_jax.app.answer import Segmentation
from bitseg_jax.app.tiles import Box
from bitseg_jax.runs import build

CLOSEUP_SHARE = 0.7  # of the sides of what it is a close-up of
_PLACES = (0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)  # corners and middle


@dataclasses.dataclass(frozen=True)
class View:
  """A part of a photo that the model sees.

  Attributes:
    photo: index of the photo.
    box: in pixels of the photo.
    num_samples: how many samples of it are drawn.
    tile: box of the tile that it is a close-up of, or its own.
  """

  photo: int
  box: Box
  num_samples: int
  tile: Box


def plan(
  images: Sequence[np.ndarray],
  tile: int | None,
  num_samples: int,
  closeups: int,
) -> list[View]:
  """Chooses the views: of each photo its tiles, each before its close-ups.

  Args:
    images: uint8 [H, W, 3] each.
    tile, num_samples, closeups: as in Segmenter.segment_batch.
  """
  views = []
  for i, image in enumerate(images):
    for box in tiles.split(image.shape[:2], tile or max(image.shape)):
      views.append(View(i, box, num_samples, box))
      for part in _closeups(box) if closeups else []:
        views.append(View(i, part, closeups, box))
  return views


def draw(
  draw_samples: Callable[..., list[tuple]],
  images: Sequence[np.ndarray],
  views: Sequence[View],
  said_of: Sequence[steering.Said] | None,
  parts: build.Experiment,
) -> list[tuple]:
  """Draws the samples of each view, see steering.draw."""
  crops = [tiles.crop(images[v.photo], v.box) for v in views]
  said = said_of and [steering.crop(said_of[v.photo], v.box) for v in views]
  counts = [v.num_samples for v in views]
  return steering.draw(draw_samples, crops, said, parts, counts)


def answers(
  images: Sequence[np.ndarray],
  views: Sequence[View],
  drawn: Sequence[tuple],
  said_of: Sequence[steering.Said] | None,
  method: str,
  follow_edges: bool,
  color_votes: bool,
  min_area: float,
  split: bool,
) -> Iterator[Segmentation]:
  """Makes one segmentation of each photo.

  Args:
    images: uint8 [H, W, 3] each.
    views: as from `plan`.
    drawn: codes and probabilities of each view, see steering.draw.
    said_of: what is known of each photo, if anything.
    method, follow_edges, color_votes, min_area, split: see AnswerOptions.
  """
  seen = zip(views, drawn, strict=True)
  for i, of_photo in itertools.groupby(seen, lambda one: one[0].photo):
    said = said_of[i] if said_of else None
    boxes, parts = [], []
    for tile, of_tile in itertools.groupby(of_photo, lambda one: one[0].tile):
      (_, whole), *others = of_tile
      closeups = [(_within(v.box, tile), codes) for v, (codes, _) in others]
      how = method, follow_edges, color_votes, closeups
      boxes.append(tile)
      photo = tiles.crop(images[i], tile)
      parts.append(steering.make_answer(*whole, photo, said, *how))
    yield _tidied(answer.join(parts, boxes), min_area, split, said)


def _tidied(result, min_area, split, said):
  """The segmentation without specks, and with its segments in one piece."""
  if not min_area and not split:
    return result
  known = said.known if said else None
  keep = None if known is None else known >= 0

  def tidy(id_map):
    if min_area:
      id_map = specks.join(id_map, min_area, keep)
    return specks.split_disconnected(id_map, known) if split else id_map

  return answer.with_id_map(
    result, tidy(result.id_map), lambda n: tidy(result.sample(n))
  )


def _closeups(box):
  """Five overlapping parts of a box."""
  top, left, bottom, right = box
  size = bottom - top, right - left
  sides = [max(1, round(CLOSEUP_SHARE * length)) for length in size]
  found = []
  for down, across in _PLACES:
    row = top + int(down * (size[0] - sides[0]))
    column = left + int(across * (size[1] - sides[1]))
    found.append((row, column, row + sides[0], column + sides[1]))
  return found


def _within(box, outer):
  """A box in pixels of the photo, in pixels of an outer box."""
  return tuple(x - outer[axis % 2] for axis, x in enumerate(box))
