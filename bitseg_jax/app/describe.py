"""What is in a prepared dataset: numbers, and a page of pictures to look at."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np

from bitseg_jax.data.prepared import record, splits
from bitseg_jax.evaluation import pictures

_BAR = 30  # characters
_SHOWN = 9  # examples spread over the dataset, beside the outstanding ones
_EXAMPLES_A_ROW = 3
_CELL = 240  # pixels
_DENSE = 200  # entities


class Summary(NamedTuple):
  """One example in numbers."""

  split: str
  index: int
  name: str
  size: tuple[int, int]  # height, width
  entities: list[int]  # of each annotator
  unlabelled: list[float]  # share of the pixels, of each annotator


def describe(data_dir: str | Path, num_codes: int = 64) -> str:
  """Reads a whole prepared dataset and writes DATA_DIR/describe.png.

  Args:
    data_dir: directory given as output when it was prepared.
    num_codes: entities that a model can tell apart.

  Returns:
    What there is to say of it, several lines.

  Raises:
    FileNotFoundError: there is no prepared dataset.
    ValueError: its files are not whole.
  """
  metadata = splits.read_metadata(data_dir)
  summaries = [
    summary
    for split in metadata['splits']
    for summary in _summarize(data_dir, split)
  ]
  page = Path(data_dir) / 'describe.png'
  _draw_page(data_dir, summaries, page)
  lines = [splits.format_table(metadata, num_codes), '']
  lines += _histogram([n for s in summaries for n in s.entities], num_codes)
  annotators = np.array([len(s.entities) for s in summaries])
  heights, widths = np.array([s.size for s in summaries]).T
  shares = np.array([share for s in summaries for share in s.unlabelled])
  lines += [
    f'annotators an image: {annotators.min()} to {annotators.max()}',
    f'width {_spread(widths)}, height {_spread(heights)} pixels',
    f'unlabelled: {shares.mean():.1%} of the pixels, '
    f'{np.mean(shares > 0):.1%} of the maps have some, at most '
    f'{shares.max():.1%}',
    f'pictures: {page}',
  ]
  return '\n'.join(lines)


def _summarize(data_dir: str | Path, split: str) -> Iterator[Summary]:
  reader = splits.open_split(data_dir, split)

  def summarize(index: int) -> Summary:
    example = reader[index]
    maps = example['id_maps']
    return Summary(
      split,
      index,
      example['name'],
      example['image'].shape[:2],
      [int(id_map.max()) + 1 for id_map in maps],  # ids have no gaps
      [float(np.mean(id_map < 0)) for id_map in maps],
    )

  options = grain.ReadOptions(num_threads=os.cpu_count() or 1)
  indices = grain.MapDataset.range(len(reader)).map(summarize)
  return iter(indices.to_iter_dataset(options))


def _histogram(entities: list[int], num_codes: int) -> list[str]:
  """Maps with 1, 2, 3-4, 5-8, ... entities, one line each."""
  counts = np.array(entities)
  over = int(np.sum(counts > num_codes))
  lines = [
    f'entities a map: median {np.median(counts):g}, most {counts.max()}; '
    f'{over} of {len(counts)} maps ({over / len(counts):.1%}) have more than '
    f'{num_codes}'
  ]
  groups = np.ceil(np.log2(counts)).astype(int)  # 2^(g-1) < count <= 2^g
  sizes = np.bincount(groups)
  for group in range(groups.min(), len(sizes)):
    low, high = 2**group // 2 + 1, 2**group
    name = f'{low}-{high}' if low < high else f'{high}'
    length = round(_BAR * sizes[group] / sizes.max())
    lines.append(f'{name:>12} {sizes[group]:>7} {"#" * length}')
  return lines


def _spread(values: np.ndarray) -> str:
  return f'{values.min()} to {values.max()} (median {np.median(values):g})'


def _draw_page(
  data_dir: str | Path, summaries: list[Summary], path: Path
) -> None:
  """Photos beside entities: some spread evenly, then those that stand out."""
  spread = np.linspace(0, len(summaries) - 1, _SHOWN).round().astype(int)
  maps = [
    (i, k) for i, s in enumerate(summaries) for k in range(len(s.entities))
  ]
  entities = lambda m: summaries[m[0]].entities[m[1]]
  unlabelled = lambda m: summaries[m[0]].unlabelled[m[1]]
  chosen = {(i, 0): '' for i in spread.tolist()}  # image, annotator: why
  chosen[max(maps, key=unlabelled)] = ''
  chosen[min(maps, key=entities)] = 'fewest: '
  chosen[max(maps, key=entities)] = 'most: '
  names = {summary.split for summary in summaries}
  readers = {name: splits.open_split(data_dir, name) for name in names}
  cells: list[pictures.Cell] = []
  for (i, annotator), why in chosen.items():
    summary = summaries[i]
    example = readers[summary.split][summary.index]
    # drawn at the page's size, else thin contours and hatches fade
    image, (id_map,) = record.shrink(
      example['image'], [example['id_maps'][annotator]], _CELL
    )
    count = summary.entities[annotator]
    caption = f'{why}{count} ' + ('entity' if count == 1 else 'entities')
    if summary.unlabelled[annotator]:
      caption += f', {summary.unlabelled[annotator]:.0%} unlabelled'
    # contours of so many would leave nothing else to see
    alone = count > _DENSE
    overlay = (
      pictures.colorize(id_map)
      if alone
      else pictures.overlay(image, id_map, 0.6)
    )
    title = f'{summary.split}: {summary.name}'
    cells += [(image, title), (overlay, caption)]
  step = 2 * _EXAMPLES_A_ROW
  rows = [cells[i : i + step] for i in range(0, len(cells), step)]
  pictures.gallery(rows, path, cell_size=_CELL)
