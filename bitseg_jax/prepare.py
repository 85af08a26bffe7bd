"""Prepares a dataset for training and evaluation, as ArrayRecord files.

bitseg prepare --dataset=folder --source=DIR --output=DIR
bitseg prepare --describe --output=DIR
"""

from absl import flags

from bitseg_jax import cli
from bitseg_jax.data.families import FAMILIES
from bitseg_jax.data.images import EXIF
from bitseg_jax.runs import log


def define_flags() -> None:
  """Defines the flags of `bitseg prepare`."""
  enum, switch = flags.DEFINE_enum, flags.DEFINE_bool
  enum('dataset', None, sorted(FAMILIES), 'Format of the source.')
  flags.DEFINE_string('source', None, 'Directory of the original dataset.')
  flags.DEFINE_string('output', None, 'Directory to write to.')
  side = 'Shrink photos to this longest side in pixels; 0 keeps their size.'
  flags.DEFINE_integer('longest_side', 512, side, lower_bound=0)
  switch('strict', False, 'Write nothing if any item is invalid.')
  switch('overwrite', False, 'Replace the dataset in --output.')
  switch('describe', False, 'Describe the dataset in --output and draw it.')
  held = 'With --describe: entities that the model can hold.'
  flags.DEFINE_integer('num_codes', 64, held, 1)
  void = 'How unlabelled pixels count.'
  enum('unlabelled', 'ignore', ['ignore', 'entity'], void)
  void = 'Id in the labels of folder that means unlabelled, as 255.'
  flags.DEFINE_multi_integer('ignore', [], void, 0)
  turn = 'Turn photos as their EXIF data says, or ignore it.'
  enum('exif', 'apply', EXIF, turn)
  flags.DEFINE_integer('page', 0, 'Page to read of stacks and animations.', 0)
  enum('split', 'paper', ['paper', 'native'], 'Splits for entityseg.')
  switch('connected', False, 'Split semantic maps of folder into entities.')


def main() -> int:
  """Runs `prepare` or `describe` with the flags and returns the exit code."""
  f = flags.FLAGS
  for name in ['dataset', 'source'] * (not f.describe) + ['output']:
    if not f[name].value:
      raise ValueError(f'--{name} is missing')
  # Only here, so that what is wrong before is said without grain and TFDS.
  from bitseg_jax.app.describe import describe
  from bitseg_jax.data.prepared.write import prepare

  if f.describe:
    print(describe(f.output, f.num_codes))
    return 0
  names = 'unlabelled', 'split', 'connected', 'ignore', 'exif', 'page'
  options = {n: f[n].value for n in names if f[n].value != f[n].default}
  with log.hold(f.output):
    prepare(
      *(f.dataset, f.source, f.output, f.longest_side, f.strict, f.overwrite),
      **options,
    )
  return 0


if __name__ == '__main__':
  cli.run(define_flags, main)
