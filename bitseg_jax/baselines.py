"""Scores simple segmenters on a prepared dataset, as evaluate scores a model.

python -m bitseg_jax.baselines --data=DIR --split=val [--output=FILE.json]
"""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from bitseg_jax import cli, metrics
from bitseg_jax.data import builder, pipeline
from bitseg_jax.writers import write_json

METRICS = ('ari', 'iou', 'covering', 'pri', 'voi_bits')


def grid(image: np.ndarray, k: int) -> np.ndarray:
  """Cuts an image [H, W, 3] into k x k equal cells: ids [H, W]."""
  rows, columns = (np.arange(n) * k // n for n in image.shape[:2])
  return rows[:, None] * k + columns


def make_methods(image_size: int) -> dict[str, tuple]:
  """(segmenter, settings) of each method, for images of that longest side."""
  from skimage.segmentation import felzenszwalb, slic  # optional

  # Best mean ARI on BSDS500 train (200 photos) at 128 px, of about 100 settings
  # each: SLIC .315, Felzenszwalb .493. SLIC's fit any size; the best scale of
  # Felzenszwalb went with the root of the side (32-256 px), min_size with area.
  side = image_size / 128
  sizes = {'scale': round(400 * side**0.5), 'min_size': round(75 * side**2)}
  return {
    'one region': (grid, {'k': 1}),
    'grid': (grid, {'k': 3}),
    'SLIC': (slic, {'n_segments': 6, 'compactness': 20, 'sigma': 1}),
    'Felzenszwalb': (felzenszwalb, {'sigma': 0.4, **sizes}),
  }


def score(pred: np.ndarray, id_map: np.ndarray) -> list[float]:
  """METRICS of ids [H, W] against one annotator."""
  covering = metrics.covering(pred, id_map)
  pri = metrics.rand_index(pred, id_map)
  voi = metrics.variation_of_information(pred, id_map)
  return [*metrics.scores(id_map, pred).values(), covering, pri, voi]


def score_source(source: Sequence[dict], image_size: int) -> dict[str, dict]:
  """Scores every method on every record (see data/pipeline.py) of a source.

  Returns:
    For each method its settings, num_images and METRICS, means over annotators
    (for `annotators`: pairs of them), then images without an empty annotation.
  """
  methods, values = make_methods(image_size), {}
  for i in tqdm(range(len(source)), unit=' images', mininterval=1):
    example = pipeline.evaluation_example(source[i], image_size)
    height, width = example['size']
    id_maps = [padded[:height, :width] for padded in example['id_maps']]
    pairs = {}
    for name, (segment, settings) in methods.items():
      pred = segment(example['image'][:height, :width], **settings)
      pairs[name] = [(pred, id_map) for id_map in id_maps]
    if len(id_maps) > 1:
      pairs['annotators'] = permutations(id_maps, 2)
    for name, compared in pairs.items():
      row = np.mean([score(*pair) for pair in compared], axis=0)
      if not np.isnan(row).any():
        values.setdefault(name, []).append(row)
  results = {}
  for name, rows in values.items():
    settings = methods[name][1] if name in methods else {}
    means = dict(zip(METRICS, np.mean(rows, axis=0).tolist(), strict=True))
    results[name] = {'settings': settings, 'num_images': len(rows), **means}
  return results


def format_table(results: dict[str, dict]) -> str:
  """Formats what score_source returns, one line a method."""
  row = '{:<13}{:>7}' + '{:>9}' * len(METRICS) + '  {}'
  lines = [row.format('method', 'images', *METRICS, 'settings')]
  for name, result in results.items():
    means = [f'{result[metric]:.3f}' for metric in METRICS]
    settings = ' '.join(f'{k}={v}' for k, v in result['settings'].items())
    lines.append(row.format(name, result['num_images'], *means, settings))
  return '\n'.join(map(str.rstrip, lines))


def main(argv: list[str]) -> None:
  """Does what the flags say; user errors end in one line and exit code 1."""
  logging.set_verbosity(logging.WARNING)  # TFDS tells of every step
  f = flags.FLAGS
  try:
    if len(argv) > 1:
      raise ValueError(f'{argv[1]} is no flag; write --data=DIR --split=val')
    if not Path(f.output).parent.is_dir():
      raise FileNotFoundError(f'{f.output}: its directory does not exist')
    results = score_source(builder.open_split(f.data, f.split), f.image_size)
    if f.output:
      asked = {'data': f.data, 'split': f.split, 'image_size': f.image_size}
      write_json(Path(f.output), {**asked, 'methods': results})
  except ImportError as error:
    cli.fail(f"{error}; pip install scikit-image (extra 'baselines')")
  except (OSError, ValueError) as error:
    cli.fail(error)
  print(f'{f.data} {f.split}, {f.image_size} px\n{format_table(results)}')


if __name__ == '__main__':
  flags.DEFINE_string('data', None, 'Directory of the prepared dataset.')
  flags.DEFINE_string('split', None, 'Split to score: train, val or test.')
  flags.DEFINE_integer('image_size', 128, 'Longest side in pixels.', 8)
  flags.DEFINE_string('output', '', 'JSON file to write as well.')
  flags.mark_flags_as_required(['data', 'split'])
  app.run(main)
