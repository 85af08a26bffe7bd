"""Plots: made without a display, written whole, as pixels or as vectors."""

import os
import pathlib
from typing import TYPE_CHECKING

from bitseg_jax.runs.log import whole_file

if TYPE_CHECKING:
  from matplotlib.figure import Figure

FORMATS = ('png', 'pdf', 'svg')
_DPI = 130  # of PNG


def new_figure() -> 'Figure':
  """Makes a figure that keeps titles, labels and legends inside of itself."""
  from matplotlib.figure import Figure  # takes half a second

  return Figure(layout='constrained')


def save(figure: 'Figure', path: str | os.PathLike) -> None:
  """Writes a figure that appears whole or not at all.

  Text in PDF and SVG stays text, which can be searched and edited.

  Args:
    figure: the figure.
    path: the file to write; its ending says the format.

  Raises:
    ValueError: the ending is none of FORMATS.
  """
  path = pathlib.Path(path)
  kind = path.suffix.removeprefix('.')
  if kind not in FORMATS:
    raise ValueError(
      f'{path}: plots are written as one of {", ".join(FORMATS)}'
    )
  import matplotlib

  as_text = {'svg.fonttype': 'none', 'pdf.fonttype': 42}
  with matplotlib.rc_context(as_text), whole_file(path, 'wb') as file:
    figure.savefig(file, format=kind, dpi=_DPI)
