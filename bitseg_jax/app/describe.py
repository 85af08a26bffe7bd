"""What is in a prepared dataset: numbers, and a page of pictures to look at."""

from pathlib import Path

import grain
import numpy as np

from bitseg_jax.data import transforms
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import pictures

_SHOWN, _CELL = 12, 240  # examples, and pixels of their pictures
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
    """Size, entities of the first map, and share unlabelled of each map."""
    example = readers[place[0]][place[1]]
    maps = example['id_maps']
    return maps[0].shape, maps[0].max() + 1, [np.mean(m < 0) for m in maps]

  summaries = grain.MapDataset.source(places).map(summarize).to_iter_dataset()
  sizes, counts, shares = zip(*summaries, strict=True)
  spread = lambda n: f'{min(n)} to {max(n)} (median {np.median(n):g})'
  heights, widths = zip(*sizes, strict=True)
  of_maps, page = np.concatenate(shares), Path(data_dir) / 'describe.png'
  # From few entities to many.
  order = np.argsort(counts, kind='stable')
  order = order[np.linspace(0, len(order) - 1, _SHOWN).round().astype(int)]
  cells: list[pictures.Cell] = []
  for i in dict.fromkeys(order.tolist()):
    split, index = places[i]
    example = readers[split][index]
    # Drawn at the page's size, else thin contours and hatches fade.
    size = transforms.fit_longest_side(*sizes[i], _CELL)
    image = transforms.resize_image(example['image'], size)
    id_map = transforms.resize_ids(example['id_maps'][0], size)
    overlay = pictures.overlay(image, id_map, 0.6)
    if counts[i] > _DENSE:  # contours would leave nothing else to see
      overlay = pictures.colorize(id_map)
    caption = f'{counts[i]} entities, {shares[i][0]:.0%} unlabelled'
    cells += [(image, f'{split}: {example["name"]}'), (overlay, caption)]
  rows = [cells[i : i + 6] for i in range(0, len(cells), 6)]
  pictures.gallery(rows, page, cell_size=_CELL)
  return (
    f'{splits.format_table(metadata, num_codes)}\n\n'
    f'width {spread(widths)}, height {spread(heights)} pixels\n'
    f'unlabelled: {of_maps.mean():.1%} of the pixels, in '
    f'{np.mean(of_maps > 0):.1%} of the maps, at most {of_maps.max():.1%}\n'
    f'pictures: {page}'
  )
