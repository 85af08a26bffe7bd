"""What a photo's segmentation is, how it can be made, and how it is made."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bitseg_jax import relabel
from bitseg_jax.app import regions
from bitseg_jax.app.closeups import scaled
from bitseg_jax.data import images, transforms
from bitseg_jax.evaluation import consensus, obeying, upsample
from bitseg_jax.evaluation.consensus import Box
from bitseg_jax.runs import schema
from bitseg_jax.runs.schema import Setting

_COPY_SIDE = 256  # of the copy on which answers are made, in pixels
# Cuts by colour count as this many times the samples if they agree with them as
# well as these with each other. Chosen on val; 1 and 3 are within .01 in ARI.
_COLORS_WEIGHT = 2.0


def _option(default, meaning, least=None, most=None, choices=None, kind=None):
  """A field; `kind` is a value of its type where the default is None."""
  kind = default if kind is None else kind
  setting = Setting(kind, meaning, least=least, most=most, choices=choices)
  return dataclasses.field(default=default, metadata={'setting': setting})


@dataclasses.dataclass(frozen=True)
class AnswerOptions:
  """How photos are segmented, beside the photos and what is said of them.

  Every field has its meaning, unit and range in metadata['setting']; from it
  come predict's flags, the page's controls, the table in docs and the record of
  what made a file. A default of None means what the model's config says, or
  for `tile` that photos are not cut. Raises ValueError if a value is out of
  range, or two do not fit each other.
  """

  # fmt: off
  num_samples: int = _option(8,
    'samples of each photo: more give a better answer and tell better where it '
    'is unsure; each takes the same time', 1, 1024)
  seed: int = _option(0,
    'seed of the samples: the same one draws the same', 0, 2**31 - 1)
  num_steps: int | None = _option(None,
    "steps from noise to a sample; by default those of the model's config",
    1, 100_000, kind=8)
  guidance_weight: float | None = _option(None,
    'how closely samples keep to the photo; 0 is off and twice as fast; by '
    "default that of the model's config", -100, 100, kind=1.0)
  tile: int | None = _option(None,
    'side in pixels of overlapping tiles into which larger photos are cut, '
    'each segmented by itself; by default none', 1, 65535, kind=1)
  follow_edges: bool = _option(True,
    "let borders follow the photo's edges")
  color_votes: bool = _option(True,
    'let cuts of the photo by colour alone vote beside the samples')
  closeups: int = _option(2,
    'samples of each of five overlapping parts of the photo, in which the '
    'model sees more detail; they join the consensus of several samples, if '
    'borders follow edges; 0 takes half the time', 0, 256)
  min_area: float = _option(0.0,
    'connected pieces smaller than this share of the photo (0.001 is a '
    'thousandth) join their neighbours', 0, 0.5)
  split_disconnected: bool = _option(False,
    'give pieces of a segment that do not touch ids of their own, so that ids '
    'count objects')
  strength: float = _option(0.5,
    'how much of a given start may change; 1 is everything', 0.01, 1)
  exif: str = _option('apply',
    'whether photos are turned upright as their EXIF data says, or stay as '
    'they are stored', choices=images.EXIF)
  page: int = _option(0,
    'page of a stack or an animation that is segmented, from 0', 0, 2**31 - 1)
  # fmt: on

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value is not None or field.default is not None:
        schema.check_value(field.name, value, field.metadata['setting'])


@dataclasses.dataclass(frozen=True)
class Segmentation:
  """The segmentation of a photo, at the photo's own size.

  Attributes:
    id_map: int32 [H, W], ids 0, 1, ... without gaps.
    uncertainty: float32 [H, W] in [0, 1]. With one sample: 1 - the probability
      of the likeliest code (Eq. 3). With several: where they differ, see
      consensus.doubt.
    confidence: float32 [K] in [0, 1] for each segment of id_map. With one
      sample: the mean probability of its code. With several: how well they
      agree on the segment, see consensus.stability.
    num_samples: number of samples N.
    sample: n -> sample n, int32 [H, W], ids without gaps, unrelated to those of
      other samples. Computed at each call, since N large maps need much memory.
  """

  id_map: np.ndarray
  uncertainty: np.ndarray
  confidence: np.ndarray
  num_samples: int
  sample: Callable[[int], np.ndarray]

  @functools.cached_property
  def samples(self) -> np.ndarray:
    """All samples, int32 [N, H, W]."""
    return np.stack([self.sample(n) for n in range(self.num_samples)])


class Draft(NamedTuple):
  """What the samples say of a photo, before its user says anything.

  All of it lies on a small copy, so that photos of any size are alike.
  """

  size: tuple[int, int]  # (H, W) of the photo
  copy: np.ndarray  # uint8 [h, w, 3]
  codes: np.ndarray  # int32 [N, g, g'], samples, to be stretched over the copy
  pieces: np.ndarray | None  # int32 [h, w], regions of it that stay whole
  id_map: np.ndarray  # int32 [h, w], the answer
  uncertainty: np.ndarray  # float32 [g, g']
  certain: np.ndarray | None  # float32 [g, g'], see `draft`


def follows_edges(size: tuple, code_size: int, options: AnswerOptions) -> bool:
  """Whether a photo of size (H, W) is larger than its codes, and has edges."""
  return options.follow_edges and max(size) > code_size


def draft(
  photo: np.ndarray,
  codes: np.ndarray,
  certain: np.ndarray | None,
  options: AnswerOptions,
  closeups: Sequence[tuple[Box, np.ndarray]] = (),
) -> Draft:
  """Makes one answer of the samples of a photo.

  Args:
    photo: uint8 [H, W, 3].
    codes: int32 [N, g, g'], decoded samples.
    certain: float32 [g, g'], the probability of the likeliest code of a single
      sample; unused where there are several.
    options: how it is made. Borders follow edges that lie between the codes'
      pixels, see regions.py, in photos that are larger than the codes.
    closeups: samples of parts of the photo, which join the consensus of
      regions: box in pixels of the photo, and codes int32 [n, g, g'].
  """
  size, grid = photo.shape[:2], codes.shape[1:]
  # At 256 pixels answers score no worse than at 481, and take a third.
  longest = min(max(size), max(_COPY_SIDE, *grid))
  small, several = transforms.fit_longest_side(*size, longest), len(codes) > 1
  copy = transforms.resize_image(photo, small)
  detailed = follows_edges(size, max(grid), options)
  pieces = regions.split(copy) if detailed else None
  if not several:
    id_map = _stretched(codes[0], small, pieces)
  elif pieces is None:
    id_map = _stretched(consensus.consensus(codes), small, None)
  else:
    others = [(scaled(box, size, small), c, 1.0) for box, c in closeups]
    if options.color_votes:
      cuts = regions.large(copy)
      seen = [transforms.resize_ids(cut, grid) for cut in cuts]
      most = _COLORS_WEIGHT * len(codes) / len(cuts)
      counts = most * consensus.trust(seen, codes) ** 2
      whole = 0, 0, *small
      others += [(whole, c[None], n) for c, n in zip(cuts, counts, strict=True)]
    id_map = consensus.consensus(codes, pieces, others)
  if several:
    of_codes = relabel.compact(transforms.resize_ids(id_map, grid))[0]
    uncertainty, certain = consensus.doubt(of_codes, codes), None
  else:
    uncertainty = 1 - certain
  return Draft(size, copy, codes, pieces, id_map, uncertainty, certain)


def _stretched(id_map, size, pieces):
  """An id map on the copy: by the majority of each piece, or smooth."""
  if pieces is None:
    return relabel.compact(upsample.smooth_ids(id_map, size))[0]
  return consensus.by_majority(id_map, pieces)


def finish(
  drafted: Draft, known: np.ndarray | None, options: AnswerOptions
) -> Segmentation:
  """Makes the segmentation of a photo; it and each sample are as known.

  Known are int32 [H, W], ids without gaps, -1 where nothing is said; or None.
  """
  small, ids, origin = _finished(drafted.id_map, drafted, known, options)
  if drafted.certain is None:
    samples = [transforms.resize_ids(c, small.shape) for c in drafted.codes]
    confidence = consensus.stability(small, samples)
  else:
    certain = upsample.upsample_values(drafted.certain, small.shape)
    sums = np.bincount(small.ravel(), certain.ravel())
    means = sums / np.bincount(small.ravel())
    confidence = np.clip(means, 0, 1).astype(np.float32)
  return Segmentation(
    id_map=ids,
    uncertainty=upsample.upsample_values(drafted.uncertainty, drafted.size),
    confidence=confidence[origin],
    num_samples=len(drafted.codes),
    sample=functools.partial(_sample, drafted, known, options),
  )


def _sample(drafted, known, options, n):
  """Sample n of a draft at the photo's size; a partial of it can be pickled."""
  ids = _stretched(drafted.codes[n], drafted.copy.shape[:2], drafted.pieces)
  return _finished(ids, drafted, known, options)[1]


def _finished(id_map, drafted, known, options):
  """The id map as known and tidied, and enlarged; where its ids come from."""
  marks = None
  if known is not None:
    marks = obeying.shrink(known, id_map.shape)
    id_map = obeying.obey(id_map, marks, drafted.copy, drafted.pieces)
  if options.min_area:
    id_map = regions.join_specks(id_map, options.min_area, marks)
  if options.split_disconnected:
    id_map = regions.split_disconnected(id_map, marks)
  ids = upsample.smooth_ids(id_map, drafted.size)
  origin = np.arange(id_map.max() + 1)
  if known is not None:
    y, x = np.nonzero(known >= 0)
    first = np.unique(known[y, x], return_index=True)[1]
    # An entity whose cells of the copy are all another's becomes one more id.
    own = len(origin) + np.arange(len(first))
    origin = np.append(origin, ids[y[first], x[first]])
    own[marks[marks >= 0]] = id_map[marks >= 0]
    ids[y, x] = own[known[y, x]]
  ids, present = relabel.compact(ids)
  return id_map, ids, origin[present]
