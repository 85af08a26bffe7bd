"""Makes the segmentation of a photo from samples at the model's size."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from bitseg_jax import metrics, relabel
from bitseg_jax.app import regions, tiles
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import consensus, upsample
from bitseg_jax.runs import schema
from bitseg_jax.runs.schema import Setting

METHODS = ('consensus', 'medoid')
_REGIONS_SCALE = 4  # regions are found at this multiple of the model's size
# All cuts by colour together count as this many times the samples if they agree
# with the samples as well as the samples agree with each other. This factor and
# the square below were chosen on every second photo of the val splits in
# docs/results.md; with 1 and with 3 instead ARI on BSDS500 was within .01.
_COLORS_WEIGHT = 2.0


def _option(default, kind, meaning, **limits):
  """A field; `kind` is a value of its type, for defaults that are None."""
  setting = Setting(kind if default is None else default, meaning, **limits)
  return dataclasses.field(default=default, metadata={'setting': setting})


@dataclasses.dataclass(frozen=True)
class AnswerOptions:
  """How photos are segmented, beside the photos and what is said of them.

  Every field has its meaning, unit and range in metadata['setting']; from it
  come predict's flags, the page's controls, the table in docs and the record of
  what made a file. A default of None means what the model's config says, or
  for `tile` that photos are not cut.

  Raises:
    ValueError: a value is out of range, or two do not fit each other.
  """

  num_samples: int = _option(
    8,
    1,
    'samples of each photo: more give a better answer and tell better where it '
    'is unsure; each takes the same time',
    least=1,
    most=1024,
  )
  seed: int = _option(
    0,
    0,
    'seed of the samples: the same one draws the same',
    least=0,
    most=2**31 - 1,
  )
  num_steps: int | None = _option(
    None,
    8,
    "steps from noise to a sample; by default those of the model's config",
    least=1,
    most=100_000,
  )
  guidance_weight: float | None = _option(
    None,
    1.0,
    'how closely samples keep to the photo; 0 is off and twice as fast; by '
    "default that of the model's config",
    least=-100,
    most=100,
  )
  method: str = _option(
    'consensus',
    '',
    'how samples become one answer: the partition that fits them best, or the '
    'sample that is most like the others',
    choices=METHODS,
  )
  tile: int | None = _option(
    None,
    1,
    'side in pixels of overlapping tiles into which larger photos are cut, '
    'each segmented by itself; by default none',
    least=1,
    most=65535,
  )
  follow_edges: bool = _option(
    True, True, "let borders follow the photo's edges"
  )
  color_votes: bool = _option(
    True, True, 'let cuts of the photo by colour alone vote beside the samples'
  )
  closeups: int = _option(
    0,
    0,
    'samples of each of five overlapping parts of the photo, in which the '
    'model sees more detail; they join the consensus',
    least=0,
    most=256,
  )
  min_area: float = _option(
    0.0,
    0.0,
    'connected pieces smaller than this share of the photo (0.001 is a '
    'thousandth) join their neighbours',
    least=0,
    most=0.5,
  )
  split_disconnected: bool = _option(
    False,
    False,
    'give pieces of a segment that do not touch ids of their own, so that ids '
    'count objects',
  )
  strength: float = _option(
    0.5,
    0.0,
    'how much of a given start may change: 0 nothing, 1 everything',
    least=0,
    most=1,
  )

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value is not None or field.default is not None:
        schema.check_value(field.name, value, field.metadata['setting'])
    if self.closeups and (self.method != 'consensus' or not self.follow_edges):
      raise ValueError(
        f'closeups is {self.closeups}; it needs method consensus and '
        'follow_edges'
      )


@dataclasses.dataclass(frozen=True)
class Segmentation:
  """The segmentation of a photo, at the photo's own size.

  Attributes:
    id_map: int32 [H, W], ids 0, 1, ... without gaps.
    uncertainty: float32 [H, W] in [0, 1]. With one sample: 1 - the probability
      of the likeliest code (Eq. 3). With several: how much they disagree, see
      metrics.uncertainty.disagreement.
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


def from_samples(
  codes: np.ndarray,
  probabilities: Callable[[int], np.ndarray],
  photo: np.ndarray,
  method: str = 'consensus',
  follow_edges: bool = True,
  color_votes: bool = True,
  closeups: Sequence[tuple[tiles.Box, np.ndarray]] = (),
) -> Segmentation:
  """Makes the segmentation of a photo, or of a tile, from samples.

  Args:
    codes: int32 [N, h, w], decoded samples.
    probabilities: n -> float32 [h, w, C], of the codes in sample n.
    photo: uint8 [H, W, 3].
    method: one of METHODS.
    follow_edges: whether regions of the photo stay whole, see regions.py, so
      that borders follow edges that lie between the model's pixels. Photos no
      larger than what the model sees have no such edges.
    color_votes: whether cuts of the photo by its colours alone join the
      consensus of regions, the more the better they agree with the samples.
      One sample is its own answer.
    closeups: samples of parts of the photo, which join the consensus of
      regions: box in pixels of the photo, and codes int32 [n, h, w].

  Returns:
    The segmentation.
  """
  size = photo.shape[:2]
  copy = _copy(photo, max(codes.shape[1:])) if follow_edges else None
  pieces = None if copy is None else regions.split(copy)

  # At the size of the pieces, or else of the codes.
  decide = lambda numbers, *others: consensus.consensus(
    codes[numbers], pieces, *others
  )

  def enlarge(id_map, numbers):
    """Returns the id map at the photo's size, and which of its ids remain."""
    if pieces is not None:
      return relabel.compact(upsample.smooth_ids(id_map, size))
    membership = upsample.memberships(
      id_map, codes[numbers], (probabilities(n) for n in numbers)
    )
    return relabel.compact(upsample.upsample_ids(membership, size))

  numbers = list(range(len(codes)))
  if method != 'consensus':
    numbers = [consensus.medoid(codes)]
  votes = _votes(copy, codes) if color_votes and len(numbers) > 1 else ()
  id_map = decide(numbers, _on(closeups, size, pieces), votes)
  uncertainty, confidence = _doubt(codes, probabilities, id_map)
  enlarged, present = enlarge(id_map, numbers)
  return Segmentation(
    id_map=enlarged,
    uncertainty=upsample.upsample_values(uncertainty, size),
    confidence=confidence[present],
    num_samples=len(codes),
    sample=lambda n: enlarge(decide([n]), [n])[0],
  )


def _doubt(codes, probabilities, id_map):
  """Uncertainty [h, w] and the confidence of each segment, see Segmentation."""
  if len(codes) == 1:
    certain = probabilities(0).max(axis=-1)
    return 1 - certain, _means(
      upsample.upsample_values(certain, id_map.shape), id_map
    )
  stretched = [transforms.resize_ids(c, id_map.shape) for c in codes]
  return (
    metrics.uncertainty.disagreement(codes),
    consensus.stability(id_map, stretched),
  )


def _copy(photo, longest):
  """The smaller copy that is cut by colour; None if the model sees it all."""
  size = photo.shape[:2]
  if max(size) <= longest:
    return None
  largest = min(max(size), longest * _REGIONS_SCALE)
  return transforms.resize_image(
    photo, transforms.fit_longest_side(*size, largest)
  )


def _votes(copy, codes):
  """Large regions, and as how many samples each cut counts."""
  if copy is None:
    return ()
  cuts = regions.large(copy)
  small = [transforms.resize_ids(cut, codes.shape[1:]) for cut in cuts]
  most = _COLORS_WEIGHT * len(codes) / len(cuts)
  counts = most * consensus.trust(small, codes) ** 2
  return list(zip(counts, cuts, strict=True))


def _on(closeups, size, pieces):
  """Close-ups with their boxes in pixels of the pieces, if there are any."""
  if pieces is None:
    return []
  scale = [n / o for n, o in zip(pieces.shape, size, strict=True)]
  found = []
  for box, codes in closeups:
    start, end = (
      [round(x * s) for x, s in zip(half, scale, strict=True)]
      for half in (box[:2], box[2:])
    )
    # Of a photo that is only a few pixels wide, one at least.
    start = [min(a, n - 1) for a, n in zip(start, pieces.shape, strict=True)]
    end = [max(a + 1, b) for a, b in zip(start, end, strict=True)]
    found.append(((*start, *end), codes))
  return found


def with_id_map(
  result: Segmentation,
  id_map: np.ndarray,
  sample: Callable[[int], np.ndarray],
) -> Segmentation:
  """Returns the segmentation with other segments.

  Args:
    result: the segmentation.
    id_map: int32 [H, W], ids 0, 1, ... without gaps. A segment's confidence is
      the mean over its pixels.
    sample: n -> sample n, int32 [H, W].
  """
  confident = result.confidence[result.id_map]
  return dataclasses.replace(
    result,
    id_map=id_map,
    confidence=_means(confident, id_map),
    sample=sample,
  )


def join(
  parts: Sequence[Segmentation], boxes: Sequence[tiles.Box]
) -> Segmentation:
  """Joins the segmentations of tiles into that of the photo.

  Args:
    parts: segmentation of each tile.
    boxes: as from tiles.split.

  Returns:
    The segmentation; a segment's confidence is the mean over its pixels.
  """
  if len(parts) == 1:
    return parts[0]
  id_map = tiles.merge_ids([part.id_map for part in parts], boxes)
  confident = tiles.join([p.confidence[p.id_map] for p in parts], boxes)
  return Segmentation(
    id_map=id_map,
    uncertainty=tiles.blend([part.uncertainty for part in parts], boxes),
    confidence=_means(confident, id_map),
    num_samples=parts[0].num_samples,
    sample=lambda n: tiles.merge_ids([p.sample(n) for p in parts], boxes),
  )


def _means(values, id_map):
  """Averages values [H, W] over each id, without gaps: float32 [K]."""
  ids = id_map.ravel()
  means = np.bincount(ids, values.ravel()) / np.bincount(ids)
  return np.clip(means, 0, 1).astype(np.float32)
