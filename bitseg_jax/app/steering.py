"""Segments photos of which something is known, or from a first segmentation.

The answer is always made to agree with what is known, and samples if asked: a
network that was trained with prompts then sees it; any other only finds it in
x_hat at every step.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bitseg_jax import palette
from bitseg_jax.app import answer, tiles
from bitseg_jax.app.answer import Segmentation
from bitseg_jax.app.tiles import Box
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import obeying, prompts
from bitseg_jax.runs import build


class Said(NamedTuple):
  """What a user says of a photo, checked.

  Attributes:
    known: int32 [H, W], ids without gaps; -1 where nothing is said.
    start: int32 [H, W], the same, or None.
    strength: how much of start may change, in [0, 1]; 1 without one.
  """

  known: np.ndarray
  start: np.ndarray | None
  strength: float


def check(
  images: Sequence[np.ndarray],
  known: Sequence[np.ndarray | None] | None,
  start: Sequence[np.ndarray | None] | None,
  strength: float,
  tile: int | None,
) -> list[Said] | None:
  """Checks what is said of photos.

  Args:
    images: uint8 [H, W, 3] each.
    known, start, strength, tile: as in Segmenter.segment_batch.

  Returns:
    What is said of each photo; None if nothing is said of any.

  Raises:
    ValueError: in one line, if it does not fit the photos or other settings.
  """
  nothing = [None] * len(images)
  known = nothing if known is None else known  # an array has no truth value
  start = nothing if start is None else start
  for name, given in (('known', known), ('start', start)):
    if len(given) != len(images):
      raise ValueError(
        f'{name} is given for {len(given)} photos of {len(images)}'
      )
  found = []
  for image, marks, begin in zip(images, known, start, strict=True):
    size = image.shape[:2]
    if marks is None:
      marks = np.full(size, -1, np.int32)
    marks = prompts.check_ids('known', marks, size)
    if begin is not None:
      begin = prompts.check_ids('start', begin, size)
    # An empty one says nothing.
    begin = None if begin is None or begin.max() < 0 else begin
    found.append(Said(marks, begin, strength if begin is not None else 1.0))
  if all(s.start is None and s.known.max() < 0 for s in found):
    return None
  if tile is not None:
    raise ValueError('known and start cannot be used with tile')
  if len({s.start is None for s in found}) > 1:
    raise ValueError('start is given for some of the photos only')
  return found


def is_free(said_of: Sequence[Said] | None) -> bool:
  """Whether samples are drawn without what is said of the photos."""
  return said_of is None or said_of[0].start is None


def draw(
  draw_samples: Callable[..., list[tuple]],
  images: Sequence[np.ndarray],
  said_of: Sequence[Said] | None,
  parts: build.Experiment,
  counts: Sequence[int],
) -> list[tuple[np.ndarray, Callable[[int], np.ndarray]]]:
  """Draws samples of photos, true to what is known of them.

  Args:
    draw_samples: (images, counts, plans=None, strength=1) -> codes and
      probabilities of each, see photo_samples.draw.
    images: uint8 [H, W, 3] each.
    said_of: what is known of them, if anything.
    parts: the experiment.
    counts: N, samples of each.

  Returns:
    Codes and probabilities of each image. For strength 0 nothing is drawn: all
    samples are the given segmentation.
  """
  if said_of is None:
    return draw_samples(images, counts)
  strength = said_of[0].strength
  if strength == 0:
    return [
      _as_drawn(*one, parts)
      for one in zip(said_of, images, counts, strict=True)
    ]
  plans = [
    _plan(said, image, parts)
    for said, image in zip(said_of, images, strict=True)
  ]
  return draw_samples(images, counts, plans=plans, strength=strength)


def crop(said: Said, box: Box) -> Said:
  """What is said of a part of a photo."""
  start = None if said.start is None else tiles.crop(said.start, box)
  return said._replace(known=tiles.crop(said.known, box), start=start)


def _plan(said, image, parts):
  """Codes of start, obeying what is known, at the model's size.

  Entities get the codes of the places where they are known, as in training.
  """
  size = transforms.fit_longest_side(*image.shape[:2], parts.code_size)
  known = prompts.shrink(said.known, size)
  whole = obeying.obey(_whole(said.start), said.known, image)
  small = transforms.resize_ids(whole, size)
  for entity in np.unique(known[known >= 0]):
    small[known == entity] = whole[said.known == entity][0]
  return _codes(small, parts)


def _codes(id_map, parts):
  if parts.palette is not None:
    return palette.assign_codes(id_map, parts.palette)
  generator = np.random.default_rng(0)
  return palette.random_codes(id_map, parts.codec.num_codes, generator)


def _whole(start):
  """What is in no segment is one more."""
  return np.where(start < 0, start.max() + 1, start)


def _as_drawn(said, image, count, parts):
  """The given segmentation as so many certain samples."""
  size = transforms.fit_longest_side(*image.shape[:2], parts.code_size)
  codes = _codes(transforms.resize_ids(_whole(said.start), size), parts)
  certain = np.eye(parts.codec.num_codes, dtype=np.float32)[codes]
  return np.stack([codes] * count), lambda n: certain


def make_answer(
  codes: np.ndarray,
  probabilities: Callable[[int], np.ndarray],
  photo: np.ndarray,
  said: Said | None,
  *settings: Any,
) -> Segmentation:
  """Makes the segmentation of a photo from samples, true to what is known.

  Args:
    codes, probabilities, photo: as in answer.from_samples.
    said: what is known of the photo, if anything.
    *settings: the others of answer.from_samples.

  Returns:
    The segmentation. Known pixels are as said, in it and in every sample.
  """
  result = answer.from_samples(codes, probabilities, photo, *settings)
  if said is None:
    return result
  if said.strength == 0:
    given = obeying.obey(_whole(said.start), said.known, photo)
    return answer.with_id_map(result, given, lambda n: given)
  if said.known.max() < 0:
    return result
  obey = lambda id_map: obeying.obey(id_map, said.known, photo)
  return answer.with_id_map(
    result, obey(result.id_map), lambda n: obey(result.sample(n))
  )
