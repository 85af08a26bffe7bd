"""Prepares a dataset from its source and prints what happens, line by line."""

import sys
from pathlib import Path
from typing import Any

from bitseg_jax.data.families import open_source
from bitseg_jax.data.outside import SourceError
from bitseg_jax.data.prepared import builder, splits
from bitseg_jax.data.prepared.encoding import fingerprint


def prepare(
  dataset: str,
  source: str,
  output: str | None = None,
  longest_side: int = 512,
  strict: bool = False,
  overwrite: bool = False,
  part: tuple[int, int] | None = None,
  **options: Any,
) -> int:
  """Writes the dataset in `source` to `output`, unless it is there already.

  Args:
    dataset: a name in `FAMILIES`.
    source: directory that holds the dataset as it was downloaded.
    output: directory to write to; None only reads the source and prints its
      problems.
    longest_side: larger photos shrink to it, in pixels; 0 keeps their size.
    strict: write nothing if any item has a problem.
    overwrite: replace the dataset in `output` once the new one is whole.
    part: (index, count): only encode that part of it; a call without, which
      writes the dataset, finds what the parts have done.
    **options: see `families.open_source`.

  Returns:
    The exit code: 0 if `output` holds the dataset, or without `output` if the
    source has no problem; else 1.

  Raises:
    SourceError, OSError: if nothing could be written; the line says why.
  """
  failure = None
  if output:
    splits.check_no_links(output)
  if output and splits.dataset_path(output).exists() and not overwrite:
    _keep(output, (dataset, longest_side, options))
    return 0
  opened = open_source(dataset, source, **options)
  print(*opened.notes, sep='\n', end='\n' if opened.notes else '')
  if output:
    key = fingerprint(source, output, dataset, longest_side, options)
    if part:
      return _encode_part(opened, output, longest_side, key, part)
    _tell_unfinished(output, key)
    problems, failure = builder.write_dataset(
      opened, output, dataset, longest_side, strict, options, key
    )
  else:
    problems = builder.check_source(opened, longest_side)
  if problems:
    print(f'{len(problems)} problems, left out:', file=sys.stderr)
    print(*problems, sep='\n', file=sys.stderr)
  if failure:
    raise SourceError(f'{failure}; nothing was written to {output}')
  if not output:
    total = sum(map(len, opened.splits.values()))
    print(f'{total} items read, {len(problems)} problems')
    return 1 if problems else 0
  print(splits.format_table(splits.read_metadata(output)))
  return 0


def _encode_part(opened, output, longest_side, key, part):
  index, count = part
  done, left_out = builder.encode_part(opened, output, longest_side, key, part)
  print(
    f'part {index} of {count} is done: {done} items, of which {left_out} will '
    'be left out; the same command without --shard writes the dataset once '
    'all parts are done'
  )
  return 0


def _tell_unfinished(output: str, key: str) -> None:
  for left in Path(output).glob(f'{splits.UNFINISHED}*'):
    if left.name == f'{splits.UNFINISHED}{key}':
      print(f'going on with the interrupted run in {left}')
    else:
      print(
        f'{left} is of an interrupted run with other settings or other files; '
        'it may be deleted'
      )


def _keep(output: str, wanted: tuple) -> None:
  held = splits.read_metadata(output)
  # a dataset prepared before there were options has none
  found = held['dataset'], held['longest_side'], held.get('options', {})
  if found != wanted:
    extra = ''.join(f', {name} {value}' for name, value in found[2].items())
    raise SourceError(
      f'{output} already holds {found[0]} with longest side {found[1]}{extra}; '
      'pass --overwrite or another --output'
    )
  print(f'{output} is already prepared (--overwrite to do it again)')
  print(splits.format_table(held))
