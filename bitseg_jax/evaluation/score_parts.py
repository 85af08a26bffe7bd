"""Scores that the jobs of an array leave on disk, for one command to join."""

import glob
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bitseg_jax import metrics
from bitseg_jax.data import outside
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import reading
from bitseg_jax.evaluation.others import ImageScore, Scores
from bitseg_jax.runs.log import write_json

Stamps = dict[str, dict[str, list[Any]]]


def stamps(found: dict[str, dict[str, list[reading.Part]]]) -> Stamps:
  """Size and time of the files of predictions: changed ones are scored anew.

  Args:
    found: by place and name of the image, see scoring.find_methods.

  Returns:
    By place and name, what JSON can hold.
  """
  return {
    place: {name: _stamp(place, parts) for name, parts in of_place.items()}
    for place, of_place in found.items()
  }


def dataset_stamp(data_dir: str | Path) -> list[list[Any]]:
  """Name, size and time of the files of a prepared dataset."""
  folder = splits.dataset_path(data_dir)
  files = [p for p in sorted(folder.glob('*')) if p.is_file()]
  stats = [(path.name, path.stat()) for path in files]
  return [[name, s.st_size, s.st_mtime_ns] for name, s in stats]


def _stamp(place, parts):
  paths = [str(part if isinstance(part, Path) else place) for part in parts]
  stats = [Path(path).stat() for path in dict.fromkeys(paths)]
  return [[s.st_size, s.st_mtime_ns] for s in stats] + [paths]


def write(
  output: Path,
  part: tuple[int, int],
  asked: dict[str, Any],
  scores: Scores,
  stamped: Stamps,
) -> Path:
  """Writes the scores of one part beside the file that all will be joined to.

  Args:
    output: that file.
    part: (index, count).
    asked: what the scores depend on beside the predictions.
    scores: by place and name of the image.
    stamped: see `stamps`.

  Returns:
    The file written.
  """
  path = output.with_name(f'{output.name}.part-{part[0]}-of-{part[1]}')
  rows = [
    [place, name, stamped[place].get(name), _to_json(score)]
    for place, of_place in scores.items()
    for name, score in of_place.items()
  ]
  write_json(path, {'asked': asked, 'scores': rows})
  return path


def read(output: Path, asked: dict[str, Any], stamped: Stamps) -> Scores:
  """Reads the scores that parts have left, if they still hold.

  Args:
    output: see `write`.
    asked: scores that were asked for otherwise are not used.
    stamped: see `stamps`; predictions that changed since are not used.

  Returns:
    Scores by place and name of the image.
  """
  scores: Scores = {place: {} for place in stamped}
  for path in paths(output):
    content = _load(path)
    if not _is_of(content, asked):
      continue
    for place, name, seen, score in content['scores']:
      if place in stamped and seen == stamped[place].get(name):
        scores[place][name] = _from_json(score)
  return scores


def holds(path: Path, asked: dict[str, Any]) -> bool:
  """Whether the scores that a part has left were asked for just so."""
  return _is_of(_load(path), asked)


def paths(output: Path) -> Iterable[Path]:
  """Returns the files that parts have written."""
  return sorted(output.parent.glob(f'{glob.escape(output.name)}.part-*-of-*'))


def _load(path):
  content = outside.read_json(path)
  if not isinstance(content, dict) or not {'asked', 'scores'} <= content.keys():
    raise outside.SourceError(f'{path} holds no scores of a part; remove it')
  return content


def _is_of(content, asked):
  return content['asked'] == json.loads(json.dumps(asked))


def _to_json(score):
  values = score._asdict()
  return values | {k: values[k].tolist() for k in ('covered', 'reliability')}


def _from_json(values):
  nan = lambda value: math.nan if value is None else value  # see write_json
  arrays = {k: np.array(values[k]) for k in ('covered', 'reliability')}
  by_name = {name: nan(value) for name, value in values['values'].items()}
  panoptic = metrics.panoptic.Matches(*map(nan, values['panoptic']))
  boundary = metrics.boundary.Matches(*map(nan, values['boundary']))
  matches = {'panoptic': panoptic, 'boundary': boundary}
  return ImageScore(**(values | arrays | matches | {'values': by_name}))
