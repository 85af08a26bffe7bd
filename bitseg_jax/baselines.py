"""Scores simple segmenters on a prepared dataset, as evaluate scores a model.

bitseg baselines --data=DIR --split=val [--output=FILE.json]
"""

from pathlib import Path

from absl import flags

from bitseg_jax import cli
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import baselines
from bitseg_jax.runs.log import write_json


def define_flags() -> None:
  """Defines the flags of `bitseg baselines`."""
  cli.define_split()
  flags.DEFINE_integer('image_size', 128, 'Longest side in pixels.', 8)
  flags.DEFINE_string('output', '', 'JSON file to write as well.')


def main() -> None:
  """Scores the baselines, prints the table and writes the JSON."""
  f = flags.FLAGS
  cli.check_output(f.output, 'methods')
  source = splits.open_split(f.data, f.split)
  results = baselines.score_source(source, f.image_size)
  print(f'{f.data} {f.split}, {f.image_size} px')
  print(baselines.format_table(results))
  if f.output:
    asked = {'data': f.data, 'split': f.split, 'image_size': f.image_size}
    write_json(Path(f.output), {**asked, 'methods': results})


if __name__ == '__main__':
  cli.run(define_flags, main)
