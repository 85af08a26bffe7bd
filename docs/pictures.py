"""Makes docs/photographs.png: example photographs and what the model says.

python docs/pictures.py [PHOTO ...]
"""

import pathlib
import sys

from bitseg_jax import Segmenter
from bitseg_jax.data.images import read_photo
from bitseg_jax.evaluation import pictures

OUTPUT = pathlib.Path('docs/photographs.png')
TITLES = 'photograph', 'segmentation', 'uncertainty', 'samples'
NUM_SAMPLES, SHOWN = 8, 3


def row(segmenter: Segmenter, path: pathlib.Path) -> list[pictures.Cell]:
  """A photograph, its segmentation, where it is unsure, and samples."""
  photo = read_photo(path)
  result = segmenter.segment(photo, num_samples=NUM_SAMPLES, min_area=0.002)
  colors = pictures.entity_colors(result.id_map)
  samples = [
    pictures.colorize(
      pictures.match_ids(result.id_map, result.sample(n)), colors
    )
    for n in range(SHOWN)
  ]
  cells = (
    photo,
    pictures.overlay(photo, result.id_map),
    pictures.doubt(photo, result.uncertainty),
    *samples,
  )
  return [(picture, '') for picture in cells]


def main() -> None:
  """Segments the photographs and writes the picture."""
  segmenter = Segmenter.from_pretrained()
  examples = pathlib.Path('bitseg_jax/app/page/examples').glob('*.jpg')
  paths = [pathlib.Path(p) for p in sys.argv[1:]] or sorted(examples)
  rows = [row(segmenter, path) for path in paths]
  pictures.gallery(rows, OUTPUT, TITLES, cell_size=150)


if __name__ == '__main__':
  main()
