"""Measures how much clicks improve a model's segmentations.

bitseg clicks --data=DIR --split=val --output=DIR [--checkpoint=DIR]

A simulated user clicks at the centre of the largest wrong region, which says
what entity lies there. Printed, and written to clicks.json, are ARI and IoU of
the map after k clicks, of the model and of two methods given the same clicks.
"""

import time
from pathlib import Path

import numpy as np
from absl import flags

from bitseg_jax import cli
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import clicks
from bitseg_jax.runs import weights
from bitseg_jax.runs.log import write_json

COUNTS = 0, 1, 2, 3, 5, 10, 20
_OPTIONS = 'num_samples', 'closeups', 'num_steps', 'seed'  # of AnswerOptions
_ASKED = 'checkpoint', 'data', 'split', 'every', 'image_size', *_OPTIONS


def define_flags() -> None:
  """Defines the flags of `bitseg clicks`."""
  cli.define_split()
  integer, string = flags.DEFINE_integer, flags.DEFINE_string
  string('checkpoint', weights.DEFAULT, weights.FLAG_HELP)
  string('output', None, 'Directory to write to.', required=True)
  integer('image_size', 128, 'Longest side in pixels.', 8)
  integer('every', 1, 'Score every so many images.', 1)
  integer('most', COUNTS[-1], 'Most clicks on a photo.', 1, COUNTS[-1])
  cli.define_options(AnswerOptions, _OPTIONS)


def main() -> None:
  """Clicks, prints the table and writes the results."""
  import grain  # only a training needs it

  f = flags.FLAGS
  source = splits.open_split(f.data, f.split)
  source = grain.MapDataset.source(source)[:: f.every]
  path = Path(f.output, 'clicks.json')
  path.parent.mkdir(parents=True, exist_ok=True)
  options = AnswerOptions(**{name: f[name].value for name in _OPTIONS})
  segmenter, spent = Segmenter.from_pretrained(f.checkpoint), []

  def segment(image, known):
    began = time.perf_counter()
    result = segmenter.segment(image, known=known, options=options)
    spent.append(time.perf_counter() - began)
    return result.id_map

  counts = [k for k in COUNTS if k <= f.most]
  scores = clicks.score_clicks(source, segment, f.image_size, counts)
  results = {
    **{name: getattr(f, name) for name in _ASKED},
    'images': len(scores['model']),
    'clicks': counts,
    'median_seconds_per_click': float(np.median(spent)),
    'methods': {
      name: dict(zip(clicks.SCORED, rows.mean(axis=0).T.tolist(), strict=True))
      for name, rows in scores.items()
    },
  }
  print(clicks.format_results(results))
  write_json(path, results)


if __name__ == '__main__':
  cli.run(define_flags, main)
