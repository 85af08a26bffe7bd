"""Colours that are pleasant and easy to tell apart."""

import functools
from collections.abc import Sequence

import numpy as np

# Tableau 20 without its greys, and some dark and vivid ones: calm and distinct.
_BASE_COLORS = """
  4e79a7 f28e2b 59a14f e15759 edc948 b07aa1 76b7b2 ff9da7 2f3b7a a0cbe8
  8cd17d 6b4c9a ffbe7d 2f6b45 8e2c48 d37295 9c755f d4a6c8 b6992d 1f8a8c
"""


@functools.cache
def make_palette(count: int) -> np.ndarray:
  """uint8 [count, 3]: the base, then each as far as can be from all before."""
  colors = [list(bytes.fromhex(color)) for color in _BASE_COLORS.split()]
  levels = np.linspace(0, 255, 24)
  grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
  luma, *chroma = _luma_chroma(grid).T
  vivid = np.hypot(*chroma)
  # Neither the grey of ignored pixels nor the white of contours, nor neon.
  pleasant = (luma > 0.25) & (luma < 0.85) & (vivid > 0.1) & (vivid < 0.25)
  grid = np.round(grid[pleasant])
  gaps = np.min([distance_to(grid, color) for color in colors], axis=0)
  while len(colors) < min(count, len(grid)):
    colors.append(grid[gaps.argmax()])
    gaps = np.minimum(gaps, distance_to(grid, colors[-1]))
  return np.array(colors, np.uint8)


def _luma_chroma(rgb):
  """ITU-R BT.601 Y, Cb, Cr of RGB in [0, 255], luma in [0, 1]."""
  red, green, blue = np.moveaxis(np.asarray(rgb) / 255, -1, 0)
  luma = 0.299 * red + 0.587 * green + 0.114 * blue
  return np.stack([luma, (blue - luma) / 1.772, (red - luma) / 1.402], axis=-1)


def distance_to(colors: np.ndarray, color: Sequence[int]) -> np.ndarray:
  """How far each of the colours [..., 3] is from one, to the eye."""
  return np.linalg.norm(_luma_chroma(colors) - _luma_chroma(color), axis=-1)
