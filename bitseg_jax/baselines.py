"""Scores simple segmenters on a prepared dataset, as a model would be scored.

python -m bitseg_jax.baselines --data=DIR --split=val [--output=FILE.json]
"""

import sys
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from bitseg_jax import evaluate, metrics
from bitseg_jax.data import builder, pipeline

METRICS = ('ari', 'iou', 'covering', 'pri', 'voi_bits')


def grid(image: np.ndarray, k: int) -> np.ndarray:
  """Cuts an image [H, W, 3] into k x k equal cells: ids [H, W]."""
  rows, columns = (np.arange(n) * k // n for n in image.shape[:2])
  return rows[:, None] * k + columns


def make_methods(image_size: int) -> dict[str, tuple]:
  """(segmenter, settings) of each method, for images of that longest side."""
  try:
    from skimage.segmentation import felzenszwalb, slic
  except ImportError as error:
    raise ImportError(
      f"{error}; pip install scikit-image, which the extra 'baselines' names"
    ) from error

  # Best mean ARI on the 200 photos of BSDS500 train at 128 px, of about 100
  # settings each: SLIC .315, Felzenszwalb .493. SLIC's hold at any size.
  # Felzenszwalb's count pixels: min_size goes with the area; the scale that was
  # best at 32, 64, 128 and 256 px went about with the root of the side.
  side = image_size / 128
  scale, min_size = round(400 * side**0.5), round(75 * side**2)
  in_pixels = {'scale': scale, 'sigma': 0.4, 'min_size': min_size}
  return {
    'one region': (grid, {'k': 1}),
    'grid': (grid, {'k': 3}),
    'SLIC': (slic, {'n_segments': 6, 'compactness': 20, 'sigma': 1}),
    'Felzenszwalb': (felzenszwalb, in_pixels),
  }


def score(pred: np.ndarray, id_map: np.ndarray) -> list[float]:
  """METRICS of ids [H, W] against one annotator."""
  return [
    *metrics.scores(id_map, pred).values(),
    metrics.covering(pred, id_map),
    metrics.rand_index(pred, id_map),
    metrics.variation_of_information(pred, id_map),
  ]


def score_source(source: Sequence[dict], image_size: int) -> dict[str, Any]:
  """Scores every method on every record (see data/pipeline.py) of a source.

  Returns:
    For each method its settings, num_images and METRICS: means over annotators,
    then images. `annotators` is each against each of the others, where an image
    has several. Left out, as in evaluate: images with an empty annotation.
  """
  methods = make_methods(image_size)
  settings = {name: settings for name, (_, settings) in methods.items()}
  settings['annotators'] = {'against': 'others'}
  values = {name: [] for name in settings}
  for i in tqdm(range(len(source)), unit=' images', mininterval=1):
    example = pipeline.evaluation_example(source[i], image_size)
    height, width = example['size']
    image = example['image'][:height, :width]
    id_maps = [padded[:height, :width] for padded in example['id_maps']]
    pairs = {'annotators': list(permutations(id_maps, 2))}
    for name, (segment, options) in methods.items():
      pred = segment(image, **options)
      pairs[name] = [(pred, id_map) for id_map in id_maps]
    for name in filter(pairs.get, pairs):
      row = np.mean([score(*pair) for pair in pairs[name]], axis=0)
      values[name] += [] if np.isnan(row).any() else [row]
  return {
    name: {'settings': settings[name], 'num_images': len(rows)}
    | dict(zip(METRICS, np.mean(rows, axis=0).tolist(), strict=True))
    for name, rows in values.items()
    if rows
  }


def format_table(results: dict[str, Any]) -> str:
  """Formats what score_source returns, one line a method."""
  row = '{:<13}{:>7}' + '{:>9}' * len(METRICS) + '  {}'
  lines = [row.format('method', 'images', *METRICS, 'settings')]
  for name, result in results.items():
    means = [f'{result[metric]:.3f}' for metric in METRICS]
    settings = ' '.join(f'{k}={v}' for k, v in result['settings'].items())
    lines.append(row.format(name, result['num_images'], *means, settings))
  return '\n'.join(lines)


def run(data: str, split: str, image_size: int = 128, output: str = '') -> int:
  """Scores a split, prints the table, writes `output`; gives the exit code."""
  try:
    if not Path(output).parent.is_dir():
      raise FileNotFoundError(f'{Path(output).parent}: no such directory')
    results = score_source(builder.open_split(data, split), image_size)
    if output:
      asked = {'data': data, 'split': split, 'image_size': image_size}
      evaluate.write_json(Path(output), {**asked, 'methods': results})
  except (ImportError, OSError, ValueError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  print(f'{data}, {split}, longest side {image_size} px')
  print(format_table(results))
  return 0


def main(argv: list[str]) -> int:
  """Runs `run` on the flags."""
  if len(argv) > 1:
    print(f'error: {argv[1]!r} is no flag; flags begin --', file=sys.stderr)
    return 1
  logging.set_verbosity(logging.WARNING)  # TFDS tells of every step
  f = flags.FLAGS
  return run(f.data, f.split, f.image_size, f.output)


if __name__ == '__main__':
  flags.DEFINE_string('data', None, 'Directory of the prepared dataset.')
  flags.DEFINE_string('split', None, 'Split to score: train, val or test.')
  flags.DEFINE_integer('image_size', 128, 'Longest side in pixels.', 8)
  flags.DEFINE_string('output', '', 'JSON file to write as well.')
  flags.mark_flags_as_required(['data', 'split'])
  app.run(main)
