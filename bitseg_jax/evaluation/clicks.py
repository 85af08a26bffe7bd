"""Measures how much clicks improve a segmentation, beside classical methods.

A simulated user looks at the result, finds the largest region that is wrong and
clicks at its centre, which says what entity of the annotation lies there. All
methods are given the clicks that the model got.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from skimage import segmentation
from tqdm import tqdm

from bitseg_jax import IGNORE_ID, metrics
from bitseg_jax.data import transforms
from bitseg_jax.evaluation import others, pictures

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
    true, pred, known: int [H, W]; true is -1 where ignored, known but for the
      clicks so far.

  Returns:
    (row, column) of the region's pixel farthest from its border; None if every
    wrong region has a click.
  """
  wrong = (true != IGNORE_ID) & (pictures.match_ids(true, pred) != true)
  largest, area = None, 0
  for entity in np.unique(true[wrong]):
    regions, _ = ndimage.label(wrong & (true == entity))
    sizes = np.bincount(regions.ravel())
    sizes[np.unique(regions[known >= 0])] = sizes[0] = 0
    if sizes.max() > area:
      largest, area = regions == sizes.argmax(), sizes.max()
  if largest is None:
    return None
  depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
  row, column = np.unravel_index(depth.argmax(), depth.shape)
  return int(row), int(column)


def nearest_mark(image: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Gives every pixel to the nearest click; one region without any."""
  if (known < 0).all():
    return np.zeros_like(known)
  _, at = ndimage.distance_transform_edt(known < 0, return_indices=True)
  return known[tuple(at)]


def random_walker(image: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Gives every pixel to the click that a walker on the photo meets first."""
  if len(np.unique(known[known >= 0])) < 2:
    return nearest_mark(image, known)
  # 'bf' solves exactly; the other modes warn of what they leave unsolved.
  how = {'mode': 'bf', 'channel_axis': -1}
  return segmentation.random_walker(image, known + 1, **how) - 1


def score_clicks(
  source: Sequence[dict[str, Any]],
  segment: Method,
  image_size: int,
  counts: Sequence[int],
) -> dict[str, np.ndarray]:
  """Scores the whole map after k clicks, of a model and of classical methods.

  Args:
    source: records, see data/pipeline.py; the first annotator is the user.
    segment: the model.
    image_size: longest side to segment and score at, in pixels.
    counts: numbers of clicks k, ascending.

  Returns:
    By method, float [images, counts, SCORED].
  """
  methods = {'nearest mark': nearest_mark, 'random walker': random_walker}
  scores = {name: [] for name in ('model', *methods)}
  for i in tqdm(range(len(source)), unit=' images', mininterval=1):
    example = transforms.evaluation_example(source[i], image_size)
    inside = np.s_[: example['size'][0], : example['size'][1]]
    image = example['image'][inside]
    true = example['id_maps'][0][inside].astype(np.int32)
    if (true == IGNORE_ID).all():
      continue
    known = np.full_like(true, IGNORE_ID)
    pred = segment(image, known)
    for k in range(max(counts) + 1):
      if k in counts:
        told = {name: method(image, known) for name, method in methods.items()}
        for name, id_map in (('model', pred), *told.items()):
          found = metrics.ari_and_iou(true, id_map)
          scores[name].append([found[score] for score in SCORED])
      click = next_click(true, pred, known) if k < max(counts) else None
      if click is not None:
        known[click] = true[click]
        pred = segment(image, known)
  if not scores['model']:
    raise ValueError(
      f'nothing to score: at {image_size} px no annotation has a labelled pixel'
    )
  shape = -1, len(counts), len(SCORED)
  return {name: np.reshape(rows, shape) for name, rows in scores.items()}


def format_results(results: dict[str, Any]) -> str:
  """Formats what the command `clicks` measured as text."""
  counts = results['clicks']
  rows = [['method', '', *(f'k={k}' for k in counts)]]
  for name, curves in results['methods'].items():
    for score, values in curves.items():
      rows.append([name, metrics.SCORES[score].title, *values])
  images, seconds = results['images'], results['median_seconds_per_click']
  last = f'{images} images; {seconds:.2f} s per click (median)'
  return f'{others.align(rows)}\n{last}'
