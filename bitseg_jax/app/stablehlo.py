"""Exports the sampler as StableHLO, for programs that lack this package.

An exported folder holds sampler.jax (jax.export, for any batch size, on CPU,
CUDA and TPU), params.npz, size.txt (side of the model's square in pixels) and
load.py, which needs jax and reads them:

  from load import load
  codes = load(folder)([photo], seed=0, number=0)
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from bitseg_jax.app import stablehlo_loader
from bitseg_jax.data.outside import read_bytes
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build
from bitseg_jax.runs.log import whole_file

_LOADER = pathlib.Path(stablehlo_loader.__file__)
PLATFORMS = ('cpu', 'cuda', 'tpu')


def export(
  parts: build.Experiment,
  params: Any,
  sampler: build.SamplerOptions,
  path: str | pathlib.Path,
) -> None:
  """Writes the folder that the module docstring describes.

  Args:
    parts: the experiment.
    params: parameters of its model.
    sampler: how samples are drawn.
    path: the folder, made if it is not there.

  Raises:
    ValueError: the codec decodes on the host (RGB).
    FileExistsError: the folder holds a load.py of somebody else.
  """
  folder = pathlib.Path(path)
  _check_folder(folder)
  leaves, structure = jax.tree.flatten(params)
  functions = draw_samples.make_functions(parts, sampler, None)

  side = parts.image_size

  def sample(leaves, image, size, seed, numbers):
    # The Segmenter draws sample n of a seed with the same key.
    params = jax.tree.unflatten(structure, leaves)
    labels = jnp.stack([numbers, jnp.zeros_like(numbers)], axis=-1)
    seen = functions.encode(params, image)
    size = -(-size * parts.code_size // side)  # codes may be coarser
    x_hat = functions.sample(
      params, seen, size, labels, seed.astype(jnp.uint32)
    )
    return parts.codec.decode(x_hat)

  (batch,) = jax_export.symbolic_shape('batch')
  shaped = jax.ShapeDtypeStruct
  try:
    exported = jax_export.export(jax.jit(sample), platforms=PLATFORMS)(
      [shaped(leaf.shape, leaf.dtype) for leaf in leaves],
      shaped((batch, side, side, 3), jnp.uint8),
      shaped((batch, 2), jnp.int32),
      shaped((), jnp.int32),
      shaped((batch,), jnp.int32),
    )
  except jax.errors.TracerArrayConversionError as error:
    raise ValueError(
      'this model has RGB codes, which are decoded outside of jax; only bits '
      'and one-hot codes can be exported'
    ) from error
  folder.mkdir(parents=True, exist_ok=True)
  arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
  with whole_file(folder / 'params.npz', 'wb') as file:
    np.savez(file, **arrays)
  for name, content in (
    ('sampler.jax', exported.serialize()),
    ('size.txt', f'{side}\n'.encode()),
    ('load.py', _LOADER.read_bytes()),
  ):
    with whole_file(folder / name, 'wb') as file:
      file.write(content)


def _check_folder(folder):
  """A folder may be written to again, but files of somebody else stay."""
  loader, ours = _LOADER.read_bytes(), folder / 'load.py'
  first = lambda content: content.splitlines()[:1]
  if ours.exists() and first(read_bytes(ours)) == first(loader):
    return
  for name in ('load.py', 'params.npz', 'sampler.jax', 'size.txt'):
    if (folder / name).exists():
      raise FileExistsError(
        f'{folder / name} was not written by an export; export to another '
        'folder'
      )
