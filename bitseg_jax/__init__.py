"""Diffusion over analog bits that segments a whole image, in JAX/Flax.

A map of the house. The method is five files, read in this order:

  schedule     time -> noise level (logsnr, alpha, sigma) and loss weight
  codec        codes <-> channels: analog bits, one-hot or RGB
  palette      id map -> codes, chosen by where an entity lies
  diffusion    noising, prediction types, guidance, the loss
  sampler      noise -> x_hat in one scan: DDPM or DDIM

Each folder is a room and imports only from those above it:

  models       the networks, listed by name in MODELS
  metrics      the scores, listed in one table, SCORES
  data         photos and annotations: families (one file per dataset),
               prepared (our own files), transforms, batches, drawn scenes
  runs         what every run needs: settings, parts, devices, checkpoints
  evaluation   samples, their consensus, and how well a model or any other does
  training     the compiled step and the loop around it
  experiments  the paper's tables and figures
  app          from a photo to its segmentation: the Segmenter, files, the page
  benchmarks   how fast each part is

The commands, which `python -m bitseg_jax` lists, are small files that read
flags and make one call. The settings of a run are in configs/base.py.
"""

import importlib
from typing import Any

from bitseg_jax import interrupts

if interrupts.is_command():  # before the imports that take seconds
  interrupts.install()

__all__ = ['IGNORE_ID', 'Segmenter', '__version__']

__version__ = '0.1.0'

# Label of pixels that belong to nothing: unlabelled, or padding.
IGNORE_ID = -1


def __getattr__(name: str) -> Any:
  # Not above: the import of this package alone must not import jax.
  if name != 'Segmenter':
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return importlib.import_module('bitseg_jax.app.segmenter').Segmenter


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
