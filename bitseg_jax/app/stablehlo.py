"""Exports the sampler as StableHLO, for programs that lack this package.

An exported folder holds sampler.jax (jax.export, for any batch size, on CPU,
CUDA and TPU), params.npz (with `side`, of the model's square in pixels) and
load.py, which needs jax and reads them:

  from load import load
  codes = load(folder)([photo], seed=0, number=0)
"""

import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from bitseg_jax.app import stablehlo_loader
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build

_PLATFORMS = 'cpu', 'cuda', 'tpu'


def export(
  parts: build.Experiment,
  params: Any,
  sampler: build.SamplerOptions,
  path: str | pathlib.Path,
) -> None:
  """Writes the folder that the module docstring describes.

  Raises:
    ValueError: the codec decodes on the host (RGB).
    FileExistsError: the folder is there already.
  """
  folder, side = pathlib.Path(path), parts.image_size
  if folder.exists():
    raise FileExistsError(
      f'{folder} is there already; export to another folder'
    )
  functions = draw_samples.make_functions(parts, sampler, None)
  leaves, structure = jax.tree.flatten(params)

  def sample(leaves, image, size, seed, numbers):
    # The Segmenter draws sample n of a seed with the same key.
    params = jax.tree.unflatten(structure, leaves)
    labels = jnp.stack([numbers, jnp.zeros_like(numbers)], axis=-1)
    size = -(-size * parts.code_size // side)  # codes may be coarser
    seen, seed = functions.encode(params, image), seed.astype(jnp.uint32)
    x_hat = functions.sample(params, seen, size, labels, seed)
    return parts.codec.decode(x_hat)

  (batch,) = jax_export.symbolic_shape('batch')
  shaped = jax.ShapeDtypeStruct
  try:
    exported = jax_export.export(jax.jit(sample), platforms=_PLATFORMS)(
      [shaped(leaf.shape, leaf.dtype) for leaf in leaves],
      shaped((batch, side, side, 3), jnp.uint8),
      shaped((batch, 2), jnp.int32),
      shaped((), jnp.int32),
      shaped((batch,), jnp.int32),
    )
  except jax.errors.TracerArrayConversionError as error:
    raise ValueError(
      'RGB codes are decoded outside of jax; export bits or one-hot codes'
    ) from error
  folder.mkdir(parents=True)
  (folder / 'sampler.jax').write_bytes(exported.serialize())
  np.savez(folder / 'params.npz', *map(np.asarray, leaves), side=side)
  shutil.copy(stablehlo_loader.__file__, folder / 'load.py')
