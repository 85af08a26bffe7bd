"""Runs an exported segmentation model; needs jax, flatbuffers and numpy."""

import pathlib

import numpy as np
from jax import export

PAD_COLOR = (124, 116, 104)  # colour of the padding


def load(folder):
  """Reads the segmentation model that Segmenter.export wrote.

  Returns:
    sample(photos, seed=0, number=0) -> list of int32 [h, w], the code of each
    pixel, or of each square of k x k pixels if the model divides photos so.
    Photos are uint8 [h, w, 3], their longest side as `side` in params.npz.
  """
  folder = pathlib.Path(folder)
  exported = export.deserialize((folder / 'sampler.jax').read_bytes())
  with np.load(folder / 'params.npz') as file:
    side = int(file['side'])
    params = [file[f'arr_{i}'] for i in range(len(file.files) - 1)]

  def sample(photos, seed=0, number=0):
    images = np.full((len(photos), side, side, 3), PAD_COLOR, np.uint8)
    sizes = np.array([photo.shape[:2] for photo in photos], np.int32)
    for i, (height, width) in enumerate(sizes):
      images[i, :height, :width] = photos[i]
    numbers = np.full(len(photos), number, np.int32)
    codes = exported.call(params, images, sizes, np.int32(seed), numbers)
    codes = np.asarray(codes)
    ends = -(-sizes * codes.shape[1] // side)
    return [c[:h, :w] for c, (h, w) in zip(codes, ends, strict=True)]

  return sample
