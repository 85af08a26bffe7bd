"""The table of a benchmark: rows printed at once, compared with a JSON file."""

from pathlib import Path

from bitseg_jax.benchmarks.host import Rows
from bitseg_jax.data.outside import SourceError, read_json


def read(path: Path) -> dict[str, float]:
  """Returns {name: value} of the JSON that an earlier run wrote.

  Raises:
    OSError: if there is no such file.
    ValueError: if no benchmark wrote it.
  """
  content = read_json(path)
  try:
    return {name: float(value) for name, value, _ in content['rows']}
  except (KeyError, TypeError, ValueError) as error:
    raise SourceError(f'{path}: not written by a benchmark') from error


def show(rows: Rows, old: dict[str, float]) -> None:
  """Prints rows, with the ratio to the value that `old` has for the name."""
  for name, value, unit in rows:
    ratio = f'  x {value / old[name]:.2f}' if old.get(name) else ''
    print(f'{name:<40}{value:>10.4g} {unit}{ratio}', flush=True)
