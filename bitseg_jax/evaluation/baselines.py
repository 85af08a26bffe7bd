"""Scores simple segmenters as baselines, as evaluate.py scores a model."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from skimage.segmentation import felzenszwalb, slic
from tqdm import tqdm

from bitseg_jax import metrics
from bitseg_jax.data import pipeline
from bitseg_jax.evaluation import ensembles


def grid(image: np.ndarray, k: int) -> np.ndarray:
  """Baseline that cuts an image [H, W, 3] into k x k cells: int ids [H, W]."""
  rows, columns = (np.arange(n) * k // n for n in image.shape[:2])
  return rows[:, None] * k + columns


def make_methods(image_size: int) -> dict[str, tuple]:
  """Returns the baselines, {name: (segmenter, settings)}, for a side."""
  # Best of about 100 settings each, by mean ARI on BSDS500 train (200 photos)
  # at 128 px: SLIC .315, Felzenszwalb .493. SLIC's fit any size; Felzenszwalb's
  # best scale grew with the root of the side (32-256 px), min_size with area.
  side = image_size / 128
  sizes = {'scale': round(400 * side**0.5), 'min_size': round(75 * side**2)}
  return {
    'one region': (grid, {'k': 1}),
    'grid': (grid, {'k': 3}),
    'SLIC': (slic, {'n_segments': 6, 'compactness': 20, 'sigma': 1}),
    'Felzenszwalb': (felzenszwalb, {'sigma': 0.4, **sizes}),
  }


def score_source(source: Sequence[dict], image_size: int) -> dict[str, dict]:
  """Scores every baseline on every record of a dataset (see data/pipeline.py).

  Returns:
    For each method its settings, num_images and scores. These are means over
    annotators who labelled anything, then over images. The method `annotators`
    compares each annotator with the others.
  """
  methods, values = make_methods(image_size), {}
  for i in tqdm(range(len(source)), unit=' images', mininterval=1):
    example = pipeline.evaluation_example(source[i], image_size)
    height, width = example['size']
    id_maps = [padded[:height, :width] for padded in example['id_maps']]
    id_maps = ensembles.labelled(id_maps)
    if not id_maps:
      continue
    image, pairs = example['image'][:height, :width], {}
    for name, (segment, settings) in methods.items():
      pred = segment(image, **settings)
      pairs[name] = [(pred, id_map) for id_map in id_maps]
    if len(id_maps) > 1:
      pairs['annotators'] = permutations(id_maps, 2)
    for name, compared in pairs.items():
      each = [metrics.of_regions(true, pred) for pred, true in compared]
      values.setdefault(name, []).append(np.mean(each, axis=0))
  results = {}
  for name, rows in values.items():
    settings = methods[name][1] if name in methods else {}
    means = zip(metrics.names('table'), np.mean(rows, axis=0), strict=True)
    results[name] = {'settings': settings, 'num_images': len(rows)}
    results[name] |= {score: float(mean) for score, mean in means}
  return results


def format_table(results: dict[str, dict]) -> str:
  """Formats what score_source returns as text, one line per method."""
  names = metrics.names('table')
  row = '{:<13}{:>7}' + '{:>9}' * len(names) + '  {}'
  titles = [metrics.SCORES[name].title for name in names]
  lines = [row.format('method', 'images', *titles, 'settings')]
  for name, result in results.items():
    means = [f'{result[metric]:.3f}' for metric in names]
    settings = ' '.join(f'{k}={v}' for k, v in result['settings'].items())
    lines.append(row.format(name, result['num_images'], *means, settings))
  return '\n'.join(map(str.rstrip, lines))
