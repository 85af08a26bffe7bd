"""What is in a prepared dataset: numbers, and a page of pictures to look at."""

from pathlib import Path

import grain
import numpy as np

from bitseg_jax.data import transforms
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import pictures

_SHOWN = 9  # examples spread over the dataset, beside the outstanding ones
_EXAMPLES_A_ROW, _CELL = 3, 240  # pixels
_DENSE = 200  # entities


def describe(data_dir: str | Path, num_codes: int = 64) -> str:
  """Reads a whole prepared dataset and writes DATA_DIR/describe.png.

  Args:
    data_dir: directory given as output when it was prepared.
    num_codes: entities that a model can tell apart.

  Returns:
    What there is to say of it, several lines.

  Raises:
    FileNotFoundError, ValueError: there is none, or its files are not whole.
  """
  metadata = splits.read_metadata(data_dir)
  readers = {s: splits.open_split(data_dir, s) for s in metadata['splits']}
  places = [(s, i) for s, reader in readers.items() for i in range(len(reader))]

  def summarize(place):
    example = readers[place[0]][place[1]]
    maps = [
      (int(m.max()) + 1, float(np.mean(m < 0))) for m in example['id_maps']
    ]
    return example['image'].shape[:2], maps

  summaries = grain.MapDataset.source(places).map(summarize).to_iter_dataset()
  sizes, summaries = zip(*summaries, strict=True)
  # Of each map: entities, share of unlabelled pixels, example, annotator.
  maps = [
    (*numbers, i, k)
    for i, own in enumerate(summaries)
    for k, numbers in enumerate(own)
  ]
  counts, shares = np.array(maps)[:, :2].T
  over = int(np.sum(counts > num_codes))
  lines = [
    splits.format_table(metadata, num_codes),
    '',
    f'entities per map: median {np.median(counts):g}, most {counts.max():g}; '
    f'{over} of {len(counts)} maps ({over / len(counts):.1%}) have more than '
    f'{num_codes}',
  ]
  groups = np.ceil(np.log2(counts)).astype(int)  # 2^(g-1) < count <= 2^g
  numbers = np.bincount(groups)
  for group in range(groups.min(), len(numbers)):
    low, high = 2**group // 2 + 1, 2**group
    name = f'{low}-{high}' if low < high else f'{high}'
    bar = '#' * round(30 * numbers[group] / numbers.max())
    lines.append(f'{name:>12} {numbers[group]:>7} {bar}')
  annotators = [len(own) for own in summaries]
  spread = lambda n: f'{n.min()} to {n.max()} (median {np.median(n):g})'
  heights, widths = np.array(sizes).T
  page = Path(data_dir) / 'describe.png'
  lines += [
    f'annotators per image: {min(annotators)} to {max(annotators)}',
    f'width {spread(widths)}, height {spread(heights)} pixels',
    f'unlabelled: {shares.mean():.1%} of the pixels, {np.mean(shares > 0):.1%} '
    f'of the maps have some, at most {shares.max():.1%}',
    f'pictures: {page}',
  ]
  # Some spread evenly, then those that stand out.
  shown = np.linspace(0, len(places) - 1, _SHOWN).round().astype(int)
  chosen = {(i, 0): '' for i in shown.tolist()}  # example, annotator: why
  chosen[max(maps, key=lambda m: m[1])[2:]] = ''
  chosen[min(maps)[2:]] = 'fewest: '
  chosen[max(maps)[2:]] = 'most: '
  cells: list[pictures.Cell] = []
  for (i, annotator), why in chosen.items():
    split, index = places[i]
    example = readers[split][index]
    # Drawn at the page's size, else thin contours and hatches fade.
    size = transforms.fit_longest_side(*sizes[i], _CELL)
    image = transforms.resize_image(example['image'], size)
    id_map = transforms.resize_ids(example['id_maps'][annotator], size)
    count, share = summaries[i][annotator]
    caption = f'{why}{count} ' + ('entity' if count == 1 else 'entities')
    caption += f', {share:.0%} unlabelled' if share else ''
    overlay = pictures.overlay(image, id_map, 0.6)
    if count > _DENSE:  # contours would leave nothing else to see
      overlay = pictures.colorize(id_map)
    cells += [(image, f'{split}: {example["name"]}'), (overlay, caption)]
  step = 2 * _EXAMPLES_A_ROW
  rows = [cells[i : i + step] for i in range(0, len(cells), step)]
  pictures.gallery(rows, page, cell_size=_CELL)
  return '\n'.join(lines)
