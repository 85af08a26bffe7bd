"""Scores simple segmenters on a prepared dataset, as evaluate scores a model.

bitseg baselines --data=DIR --split=val [--output=FILE.json]
"""

from collections.abc import Sequence
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
from absl import flags
from skimage.segmentation import felzenszwalb, slic
from tqdm import tqdm

from bitseg_jax import cli, metrics
from bitseg_jax.data import transforms
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import others
from bitseg_jax.runs.log import write_json


def grid(image: np.ndarray, k: int) -> np.ndarray:
  """Baseline that cuts an image [H, W, 3] into k x k cells: int ids [H, W]."""
  rows, columns = (np.arange(n) * k // n for n in image.shape[:2])
  return rows[:, None] * k + columns


def make_methods(image_size: int) -> dict[str, partial]:
  """Returns the baselines by name, each with its settings, for a side."""
  # Best of about 100 settings each, by mean ARI on BSDS500 train at 128 px.
  side = image_size / 128
  sizes = {'scale': round(400 * side**0.5), 'min_size': round(75 * side**2)}
  return {
    'one region': partial(grid, k=1),
    'grid': partial(grid, k=3),
    'SLIC': partial(slic, n_segments=6, compactness=20, sigma=1),
    'Felzenszwalb': partial(felzenszwalb, sigma=0.4, **sizes),
  }


def score_source(source: Sequence[dict], image_size: int) -> dict[str, dict]:
  """Scores every baseline, and `annotators`, on the records of a dataset.

  By name: settings, num_images, scores as means over annotators, then images.
  """
  methods, values = make_methods(image_size), {}
  for i in tqdm(range(len(source)), unit=' images', mininterval=1):
    example = transforms.evaluation_example(source[i], image_size)
    inside = np.s_[: example['size'][0], : example['size'][1]]
    id_maps = metrics.labelled([ids[inside] for ids in example['id_maps']])
    pairs = {}
    for name, segment in methods.items():
      pred = segment(example['image'][inside])
      pairs[name] = [(id_map, pred) for id_map in id_maps]
    pairs['annotators'] = permutations(id_maps, 2)
    for name, compared in pairs.items():
      if each := [metrics.region_scores(*pair) for pair in compared]:
        values.setdefault(name, []).append(np.mean(each, axis=0))
  results = {}
  for name, rows in values.items():
    settings = methods[name].keywords if name in methods else {}
    results[name] = {'settings': settings, 'num_images': len(rows)}
    means = np.mean(rows, axis=0).tolist()
    results[name] |= zip(metrics.names('table'), means, strict=True)
  return results


def format_table(results: dict[str, dict]) -> str:
  """Formats what score_source returns as text, one line per method."""
  names = metrics.names('table')
  titles = (metrics.SCORES[name].title for name in names)
  rows = [['method', 'images', *titles, 'settings']]
  for name, of in results.items():
    settings = ' '.join(f'{k}={v}' for k, v in of['settings'].items())
    rows.append([name, of['num_images'], *map(of.get, names), settings])
  return others.align(rows)


def define_flags() -> None:
  """Defines the flags of `bitseg baselines`."""
  cli.define_split()
  flags.DEFINE_integer('image_size', 128, 'Longest side in pixels.', 8)
  flags.DEFINE_string('output', '', 'JSON file to write as well.')


def main() -> None:
  """Scores the baselines, prints the table and writes the JSON."""
  f = flags.FLAGS
  cli.check_output(f.output, 'methods')
  results = score_source(splits.open_split(f.data, f.split), f.image_size)
  print(f'{f.data} {f.split}, {f.image_size} px\n{format_table(results)}')
  if f.output:
    asked = {'data': f.data, 'split': f.split, 'image_size': f.image_size}
    write_json(Path(f.output), {**asked, 'methods': results})


if __name__ == '__main__':
  cli.run(define_flags, main)
