"""Measures how much clicks improve a segmentation, beside classical methods.

A simulated user looks at the result, finds the largest region that is wrong and
clicks at its centre, which says what entity of the annotation lies there. Numpy
on the host.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage import color, filters, segmentation
from tqdm import tqdm

from bitseg_jax import IGNORE_ID, metrics
from bitseg_jax.data import pipeline
from bitseg_jax.evaluation import baselines, obeying

# (image uint8 [H, W, 3], known int32 [H, W]) -> int ids [H, W]
Method = Callable[[np.ndarray, np.ndarray], np.ndarray]
SCORED = 'ari', 'iou'


def next_click(
  true: np.ndarray, pred: np.ndarray, known: np.ndarray
) -> tuple[int, int] | None:
  """Finds the centre of the largest wrong region that has no click yet.

  A pixel is wrong where its entity is not the one that its segment is matched
  to; a region is a connected part of one entity.

  Args:
    true: int [H, W], -1 where ignored.
    pred: int [H, W].
    known: int [H, W], -1 but for the clicks so far.

  Returns:
    (row, column) of the region's pixel farthest from its border; None if
    nothing is wrong, or every wrong region has a click.
  """
  table, entities, segments = metrics.contingency(true, pred)
  rows, columns = linear_sum_assignment(-metrics.iou_matrix(table))
  matched = np.full(len(segments), IGNORE_ID, np.int64)
  matched[columns] = entities[rows]
  place = np.searchsorted(segments, pred).clip(0, len(segments) - 1)
  wrong = (true != IGNORE_ID) & (matched[place] != true)
  largest = np.zeros(true.shape, bool)
  for entity in np.unique(true[wrong]):
    regions, _ = ndimage.label(wrong & (true == entity))
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    sizes[np.unique(regions[known >= 0])] = 0
    if sizes.max() > largest.sum():
      largest = regions == sizes.argmax()
  return _centre(largest) if largest.any() else None


def _centre(region):
  """(row, column) of the pixel farthest from the border of a region."""
  depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
  row, column = np.unravel_index(depth.argmax(), depth.shape)
  return int(row), int(column)


def jittered(
  click: tuple[int, int],
  true: np.ndarray,
  jitter: float,
  rng: np.random.Generator,
) -> tuple[int, int]:
  """Moves a click as a hand would, but not out of its entity.

  Args:
    click: (row, column).
    true: int [H, W].
    jitter: standard deviation as a share of the longest side.
    rng: source of randomness.

  Returns:
    (row, column); the click itself if the moved one is in another entity.
  """
  moved = np.rint(np.add(click, rng.normal(0, jitter * max(true.shape), 2)))
  row, column = (int(v) for v in moved.clip(0, np.subtract(true.shape, 1)))
  return (row, column) if true[row, column] == true[click] else click


def classical_methods(image_size: int) -> dict[str, Method]:
  """Returns methods that need no training, by name.

  'nearest mark', 'watershed' and 'random walker' give every pixel to a click;
  'Felzenszwalb' is that of the baselines, made to agree with the clicks.
  """
  felzenszwalb, settings = baselines.make_methods(image_size)['Felzenszwalb']

  def nearest(image, known):
    _, at = ndimage.distance_transform_edt(known < 0, return_indices=True)
    return known[tuple(at)]

  def watershed(image, known):
    edges = filters.sobel(color.rgb2gray(image))
    return segmentation.watershed(edges, known + 1) - 1

  def walker(image, known):
    if len(clicked := np.unique(known[known >= 0])) == 1:
      return np.full_like(known, clicked[0])
    # 'bf' solves exactly; the other modes warn of what they leave unsolved.
    labels = segmentation.random_walker(
      image, known + 1, mode='bf', channel_axis=-1
    )
    return labels - 1

  def oversegmented(image, known):
    return obeying.obey(felzenszwalb(image, **settings), known, image)

  def seeded(method):
    empty = lambda known: np.zeros_like(known)
    return lambda image, known: (
      method(image, known) if known.max() >= 0 else empty(known)
    )

  return {
    'nearest mark': seeded(nearest),
    'watershed': seeded(watershed),
    'random walker': seeded(walker),
    'Felzenszwalb': oversegmented,
  }


def score_whole_maps(
  source: Sequence[dict[str, Any]],
  segment: Method,
  image_size: int,
  counts: Sequence[int],
  jitter: float = 0.0,
  seed: int = 0,
  own_clicks: bool = False,
) -> dict[str, dict[str, np.ndarray]]:
  """Scores the whole map after k clicks, of a model and of classical methods.

  Args:
    source: records, see data/pipeline.py; the first annotator is the user.
    segment: the model.
    image_size: longest side to segment and score at, in pixels.
    counts: numbers of clicks k, ascending.
    jitter: see jittered.
    seed: of the jitter.
    own_clicks: whether each method is clicked at for its own mistakes; else
      all are given the clicks that the model got.

  Returns:
    By method and score of SCORED, float [images, counts].

  Raises:
    ValueError: there is nothing to score.
  """
  methods = {'model': segment, **classical_methods(image_size)}
  values = {name: {s: [] for s in SCORED} for name in methods}
  for i in tqdm(range(len(source)), unit=' images', mininterval=1):
    image, true = _prepare(source[i], image_size)
    if (true == IGNORE_ID).all():
      continue
    settings = counts, jitter
    shared = _click(image, true, segment, *settings, [seed, i])
    for name, method in methods.items():
      if name == 'model':
        preds = [pred for _, pred in shared]
      elif own_clicks:
        clicked = _click(image, true, method, *settings, [seed, i])
        preds = [pred for _, pred in clicked]
      else:
        preds = [method(image, known) for known, _ in shared]
      rows = [metrics.scores(true, pred) for pred in preds]
      for score in SCORED:
        values[name][score].append([row[score] for row in rows])
  if not values['model'][SCORED[0]]:
    raise ValueError(
      f'nothing to score: at {image_size} px no annotation has a labelled pixel'
    )
  return {
    name: {score: np.array(rows) for score, rows in of.items()}
    for name, of in values.items()
  }


def _prepare(record, image_size):
  example = pipeline.evaluation_example(record, image_size)
  height, width = example['size']
  true = example['id_maps'][0][:height, :width]
  return example['image'][:height, :width], true.astype(np.int32)


def _click(image, true, segment, counts, jitter, seed):
  """(known, id map) of one method after each of `counts` clicks."""
  rng = np.random.default_rng(seed)
  known = np.full(true.shape, IGNORE_ID, np.int32)
  pred, found = segment(image, known), {}
  for k in range(max(counts) + 1):
    found[k] = known.copy(), pred
    click = next_click(true, pred, known) if k < max(counts) else None
    if click is not None:
      if jitter:
        click = jittered(click, true, jitter, rng)
      known[click] = true[click]
      pred = segment(image, known)
  return [found[k] for k in counts]


def score_objects(
  source: Sequence[dict[str, Any]],
  segment: Method,
  image_size: int,
  most_clicks: int = 20,
  least_area: float = 0.02,
  seed: int = 0,
) -> np.ndarray:
  """Scores the interactive segmentation of single objects, one an image.

  The first click is in the object, each other one at the centre of the largest
  region that is wrongly in or out. A click outside of the object says of its
  pixel only that it is of another entity than all other clicks.

  Args:
    source: records; the first annotator's entities are the objects.
    segment: the model or another method.
    image_size: longest side, in pixels.
    most_clicks: clicks for each object.
    least_area: smallest object, as a share of the image.
    seed: of the choice of objects.

  Returns:
    float [objects, most_clicks], IoU after 1, 2, ... clicks.

  Source: the protocol of Sofiiuk et al., "Reviving iterative training with mask
    guidance for interactive segmentation", 2021.
  """
  rng, rows = np.random.default_rng(seed), []
  for i in tqdm(range(len(source)), unit=' objects', mininterval=1):
    image, true = _prepare(source[i], image_size)
    ids, areas = np.unique(true, return_counts=True)
    ids = ids[(areas >= least_area * true.size) & (ids != IGNORE_ID)]
    if len(ids):
      rows.append(_object(image, true == rng.choice(ids), segment, most_clicks))
  return np.array(rows).reshape(-1, most_clicks)


def _object(image, target, segment, most_clicks):
  known = np.full(target.shape, IGNORE_ID, np.int32)
  inside, ious = np.zeros(target.shape, bool), []
  for k in range(most_clicks):
    wrong = [target & ~inside, inside & ~target]
    regions = [ndimage.label(w & (known < 0))[0] for w in wrong]
    sizes = [np.bincount(r.ravel(), minlength=2)[1:] for r in regions]
    missing = int(sizes[1].max() > sizes[0].max())
    if not sizes[missing].max():  # nothing is wrong but clicked pixels
      ious += ious[-1:] * (most_clicks - k)
      break
    at = _centre(regions[missing] == sizes[missing].argmax() + 1)
    known[at] = k + 1 if missing else 0
    pred = segment(image, known)
    inside = pred == pred[known == 0][0]
    union = (inside | target).sum()
    ious.append(float((inside & target).sum() / union))
  return ious


def clicks_needed(ious: np.ndarray, least: float) -> float:
  """Averages over objects how many clicks reach an IoU (NoC).

  Args:
    ious: float [objects, clicks], as from score_objects.
    least: the IoU to reach.

  Returns:
    The mean; an object that never reaches it counts with all its clicks.
  """
  reached = ious >= least
  first = np.where(reached.any(1), reached.argmax(1) + 1, ious.shape[1])
  return float(first.mean())
