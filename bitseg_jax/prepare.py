"""Prepares a dataset for training and evaluation, as ArrayRecord files.

python -m bitseg_jax.prepare --dataset=folder --source=DIR --output=DIR
"""

import signal
import sys
from pathlib import Path

from absl import app, flags, logging

from bitseg_jax.data import bsds500, builder, folder
from bitseg_jax.data.source import SourceError

SOURCES = {'bsds500': bsds500.open_source, 'folder': folder.open_source}


def prepare(
  dataset: str,
  source: str,
  output: str,
  longest_side: int = 512,
  strict: bool = False,
  overwrite: bool = False,
) -> int:
  """Writes the dataset in `source` to `output`, unless it is there already.

  Args:
    dataset: a name in `SOURCES`.
    source: directory that holds the dataset as it was downloaded.
    output: directory to write to.
    longest_side: larger photos shrink to it (pixels), 0 = keep their size.
    strict: write nothing if any item has a problem.
    overwrite: delete the dataset in `output` first.

  Returns:
    The exit code: 0 when the dataset is there, else 1.
  """
  try:
    if builder.dataset_path(output).exists() and not overwrite:
      return _keep(dataset, output, longest_side)
    for left in Path(output).glob('*/incomplete.*'):
      print(f'{left} is left of an interrupted run and may be deleted')
    if not Path(source).is_dir():
      return _fail(f'{source}: no such directory')
    opened = SOURCES[dataset](source)
    print(*opened.notes, sep='\n', end='\n' if opened.notes else '')
    problems, failure = builder.write_dataset(
      opened, output, dataset, longest_side, strict
    )
  except (SourceError, OSError) as error:
    return _fail(str(error))
  except KeyboardInterrupt:
    return _fail(f'interrupted; nothing was written to {output}')
  if problems:
    print(f'{len(problems)} problems, left out:', file=sys.stderr)
    print(*problems, sep='\n', file=sys.stderr)
  if failure:
    return _fail(f'{failure}; nothing was written to {output}')
  print(builder.format_table(builder.read_metadata(output)))
  return 0


def _keep(dataset: str, output: str, longest_side: int) -> int:
  metadata = builder.read_metadata(output)
  if (metadata['dataset'], metadata['longest_side']) != (dataset, longest_side):
    return _fail(
      f'{output} already holds {metadata["dataset"]} with longest side '
      f'{metadata["longest_side"]}; pass --overwrite or another --output'
    )
  print(f'{output} is already prepared (--overwrite to do it again)')
  print(builder.format_table(metadata))
  return 0


def _fail(reason: str) -> int:
  print(f'error: {reason}', file=sys.stderr)
  return 1


def _define_flags() -> None:
  flags.DEFINE_enum('dataset', None, sorted(SOURCES), 'Kind of source.')
  flags.DEFINE_string('source', None, 'Directory with the dataset as it is.')
  flags.DEFINE_string('output', None, 'Directory to write to.')
  flags.DEFINE_integer(
    'longest_side',
    512,
    'Shrink larger photos to this many pixels; 0 keeps their size.',
    lower_bound=0,
  )
  flags.DEFINE_bool('strict', False, 'Write nothing if any item is bad.')
  flags.DEFINE_bool('overwrite', False, 'Delete what is in output first.')
  flags.mark_flags_as_required(['dataset', 'source', 'output'])


def main(argv: list[str]) -> int:
  """Runs `prepare` on the flags."""
  if len(argv) > 1:
    return _fail(f'{argv[1]} is no flag; write --source=DIR --output=DIR')
  logging.set_verbosity(logging.WARNING)  # TFDS tells of every step
  # a batch system's TERM then cleans up as Ctrl-C does
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  f = flags.FLAGS
  return prepare(
    f.dataset, f.source, f.output, f.longest_side, f.strict, f.overwrite
  )


if __name__ == '__main__':
  _define_flags()
  app.run(main)
