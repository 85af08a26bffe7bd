"""Diffusion over analog bits that segments a whole image, in JAX/Flax.

The method is five files, read in this order: schedule, codec, palette,
diffusion, sampler. docs/contributing.md is a map of the rest. To segment a
photo, an array [H, W, 3] or a Pillow image, with the model that comes along:

  from bitseg_jax import Segmenter
  Segmenter.from_pretrained().segment(photo).id_map  # int32 [H, W]
"""

import importlib
import signal
from typing import Any

from bitseg_jax import interrupts

if interrupts.is_command():  # before the imports that take seconds
  interrupts.install()
elif interrupts.is_worker():  # Ctrl-C reaches it as well; the command says it
  interrupts.ignore(signal.SIGINT)

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
