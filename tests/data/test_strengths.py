"""How strong and how frequent the paper's augmentations are.

An example shows what was done to it: its pixels have different ids, which tell
flips and rotations, and chosen colours, which tell the rest.
"""

import colorsys
from collections import Counter

import numpy as np
import pytest

from bitseg_jax.data import transforms

SIDE, DRAWS = 49, 5000
IDS = np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE)
GREYS = np.repeat(np.arange(256)[:, None], 3, 1)
COLOURS = np.array(
  [(150, 90, 60), (60, 140, 100), (120, 80, 170), (170, 160, 60)]
)
PROBE = np.zeros((SIDE * SIDE, 3), np.uint8)  # all greys, the colours, black
PROBE[:256], PROBE[256 : 256 + len(COLOURS)] = GREYS, COLOURS
PROBE = PROBE.reshape(SIDE, SIDE, 3)
KINDS = 'flip', 'gamma', 'line', 'hsv', 'shift', 'rotation'
EACH = np.array([1, -1, 0.5])  # three numbers drawn at once are independent


class Script:
  """Stands for a generator: one augmentation, and how far from its middle."""

  def __init__(self, kind, at):
    self._random = iter([0.0 if k == kind else 0.999 for k in KINDS])
    self._at = at

  def random(self):
    return next(self._random)

  def uniform(self, low, high, size=None):
    at = self._at * (1 if size is None else EACH[:size])
    return (low + high) / 2 + at * (high - low) / 2


class Spy(np.random.Generator):
  """Counts what is drawn."""

  def uniform(self, *arguments):
    self.seen[arguments] += 1
    return super().uniform(*arguments)


def to_hsv(colours):
  hsv = [colorsys.rgb_to_hsv(*(c / 255)) for c in colours]
  return np.array(hsv) * (180, 255, 255)


def shift_hsv(colours, at):
  """Hue, of 180, saturation and value, of 255, change by 20, 30 and 20."""
  hue, saturation, value = (
    (to_hsv(colours) + at * EACH * (20, 30, 20)) / (180, 255, 255)
  ).T
  parts = hue % 1, np.clip(saturation, 0, 1), np.clip(value, 0, 1)
  rgb = [colorsys.hsv_to_rgb(*c) for c in zip(*parts, strict=True)]
  return np.array(rgb) * 255


@pytest.mark.parametrize('at', [-1, -0.5, 1])
@pytest.mark.parametrize(
  ('kind', 'change', 'error'),
  [
    ('gamma', lambda c, at: 255 * (c / 255) ** (1 + 0.2 * at), 0.51),
    # Brightness, then contrast: up to a fifth.
    ('line', lambda c, at: (1 - 0.2 * at) * c + 0.2 * 255 * at, 0.51),
    ('hsv', shift_hsv, 6),
    ('shift', lambda c, at: c + np.round(20 * at * EACH), 0.01),
  ],
)
def test_each_change_of_colour_is_as_strong_as_stated(kind, change, error, at):
  changed, ids = transforms.augment(PROBE, IDS, Script(kind, at), 'full')
  np.testing.assert_array_equal(ids, IDS)
  flat = changed.reshape(-1, 3)
  colours = flat[256 : 256 + len(COLOURS)]
  expected = np.clip(change(COLOURS, at), 0, 255)
  np.testing.assert_allclose(colours, expected, atol=error)
  if kind != 'hsv':  # the hue of a grey is none
    expected = np.clip(change(GREYS, at), 0, 255)
    np.testing.assert_allclose(flat[:256], expected, atol=error)


@pytest.mark.parametrize('at', [-1, -0.5, 1])
def test_rotations_reach_20_degrees(at):
  ids = transforms.augment(PROBE, IDS, Script('rotation', at), 'full')[1]
  y, x = (grid[ids >= 0] - SIDE // 2 for grid in np.indices(ids.shape))
  y_from, x_from = (n - SIDE // 2 for n in np.divmod(ids[ids >= 0], SIDE))
  sine, cosine = x * y_from - y * x_from, x * x_from + y * y_from
  angle = np.degrees(np.arctan2(sine.sum(), cosine.sum()))
  assert abs(angle - 20 * at) < 0.2


def test_how_often_each_of_them_comes():
  seen, flips = Counter(), Counter()
  for seed in range(DRAWS):
    for kind in ('full', 'flip'):
      rng = Spy(np.random.PCG64(seed))
      rng.seen = seen
      ids = transforms.augment(PROBE[:3, :3], IDS[:3, :3], rng, kind)[1]
      flips[kind] += ids[1, 0] > ids[1, 2]
  shares = {drawn: count / DRAWS for drawn, count in seen.items()}
  assert shares == {
    (0.8, 1.2): pytest.approx(0.3, abs=0.03),  # gamma
    (-0.2, 0.2, 2): pytest.approx(0.3, abs=0.03),
    (-1, 1, 3): pytest.approx(0.3, abs=0.03),  # hue, saturation and value
    (-20, 20, 3): pytest.approx(0.1, abs=0.02),
    (-20, 20): pytest.approx(0.3, abs=0.03),  # degrees
  }
  for count in flips.values():
    assert abs(count / DRAWS - 0.5) < 0.03
