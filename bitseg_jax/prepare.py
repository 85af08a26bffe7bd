"""Prepares a dataset for training and evaluation, as ArrayRecord files.

python -m bitseg_jax.prepare --dataset=folder --source=DIR --output=DIR
python -m bitseg_jax.prepare --dataset=folder --source=DIR --check
python -m bitseg_jax.prepare --describe --output=DIR
"""

import signal

from absl import app, flags, logging

from bitseg_jax.data.families import FAMILIES
from bitseg_jax.data.preparation import fail, prepare
from bitseg_jax.describe import describe


def _define_flags() -> None:
  enum, switch = flags.DEFINE_enum, flags.DEFINE_bool
  enum('dataset', None, sorted(FAMILIES), 'Kind of source.')
  flags.DEFINE_string('source', None, 'Directory with the dataset as it is.')
  flags.DEFINE_string('output', None, 'Directory to write to.')
  side = 'Shrink larger photos to this many pixels; 0 keeps their size.'
  flags.DEFINE_integer('longest_side', 512, side, lower_bound=0)
  switch('strict', False, 'Write nothing if any item is bad.')
  switch('overwrite', False, 'Replace what is in output.')
  switch('check', False, 'Read everything, report problems, write nothing.')
  switch('describe', False, 'Say what is in output, and draw a page of it.')
  enum('unlabelled', 'ignore', ['ignore', 'entity'], 'What such pixels are.')
  enum('split', 'paper', ['paper', 'native'], 'Splits of entityseg.')
  switch('connected', False, 'Cut the semantic maps of folder into entities.')


def main(argv: list[str]) -> int:
  """Runs `prepare` or `describe` on the flags."""
  f = flags.FLAGS
  if len(argv) > 1:
    return fail(f'{argv[1]} is no flag; write --source=DIR --output=DIR')
  logging.set_verbosity(logging.WARNING)  # TFDS tells of every step
  # a batch system's TERM then cleans up as Ctrl-C does
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  needed = ['dataset', 'source'] * (not f.describe) + ['output'] * (not f.check)
  for name in needed:
    if not f[name].value:
      return fail(f'--{name} is missing')
  if f.describe:
    try:
      print(describe(f.output))
    except (OSError, ValueError) as error:
      return fail(str(error))
    return 0
  names = ('unlabelled', 'split', 'connected')
  options = {n: f[n].value for n in names if f[n].value != f[n].default}
  return prepare(
    f.dataset,
    f.source,
    None if f.check else f.output,
    f.longest_side,
    f.strict,
    f.overwrite,
    **options,
  )


if __name__ == '__main__':
  _define_flags()
  app.run(main)
