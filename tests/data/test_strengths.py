"""How strong and how frequent the paper's augmentations are, as measured.

Nothing here knows how they are drawn or in which order: an example shows what
was done to it. Its pixels have different ids, which tell flips and rotations,
and chosen colours, which tell the rest wherever nothing was rotated.
"""

import colorsys
import functools

import numpy as np
import pytest

from bitseg_jax.data import transforms

SIDE, DRAWS = 49, 5000
IDS = np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE)
GREYS = np.repeat(np.arange(256)[:, None], 3, 1)
COLOURS = np.array(
  [(150, 90, 60), (60, 140, 100), (120, 80, 170), (170, 160, 60)]
)
RAMP = np.arange(256.0)


def probe():
  """An image of all greys, then the colours, then black."""
  image = np.zeros((SIDE * SIDE, 3), np.uint8)
  image[:256], image[256 : 256 + len(COLOURS)] = GREYS, COLOURS
  return image.reshape(SIDE, SIDE, 3)


@functools.cache
def draws():
  """What augmentation did to the probe, many times.

  Returns:
    (whether flipped, degrees of rotation [DRAWS]; how the greys [N, 256, 3] and
    the colours [N, 4, 3] came out of the N draws without rotation).
  """
  image, flips, angles, greys, colours = probe(), [], [], [], []
  for seed in range(DRAWS):
    changed, ids = transforms.augment(
      image, IDS, np.random.default_rng(seed), 'full'
    )
    from_columns = ids[SIDE // 2] % SIDE
    flips.append(from_columns[SIDE // 2 - 9] > from_columns[SIDE // 2 + 9])
    if flips[-1]:
      changed, ids = changed[:, ::-1], ids[:, ::-1]
    angles.append(angle(ids))
    if np.array_equal(ids, IDS):
      flat = changed.reshape(-1, 3).astype(int)
      greys.append(flat[:256])
      colours.append(flat[256 : 256 + len(COLOURS)])
  return np.array(flips), np.array(angles), np.array(greys), np.array(colours)


def angle(ids):
  """Degrees by which the ids were turned about the centre, by least squares."""
  seen = ids >= 0
  y, x = (grid[seen] - SIDE // 2 for grid in np.indices(ids.shape))
  y_from, x_from = (n - SIDE // 2 for n in np.divmod(ids[seen], SIDE))
  sine, cosine = (
    (x * y_from - y * x_from).sum(),
    (x * x_from + y * y_from).sum(),
  )
  return np.degrees(np.arctan2(sine, cosine))


def gamma_of(greys):
  """The exponent that made the greys, or nan if none did."""
  if np.ptp(greys, axis=1).any() or greys[0, 0] or greys[255, 0] != 255:
    return np.nan
  tone = greys[:, 0]
  exponent = np.log(tone[100] / 255 + 1e-9) / np.log(100 / 255)
  around = exponent + np.linspace(-0.01, 0.01, 21)
  errors = np.abs(255 * (RAMP[:, None] / 255) ** around - tone[:, None]).max(0)
  return around[errors.argmin()] if errors.min() < 0.6 else np.nan


def line_of(greys, colours):
  """(slope, offset of 255) of the line that all went along, or nan, nan."""
  tone = greys[:, 0]
  inner = (tone > 0) & (tone < 255)
  slope, offset = np.polyfit(RAMP[inner], tone[inner], 1)
  # A slope of 1 may be a shift of the value.
  fits = abs(slope - 1) > 0.003 and all(
    np.abs(np.clip(slope * before + offset, 0, 255) - after).max() < 1.1
    for before, after in ((GREYS, greys), (COLOURS, colours))
  )
  return (slope, offset / 255) if fits else (np.nan, np.nan)


def shift_of(greys, colours):
  """What was added to red, green and blue [3] of all, or nan."""
  shift = np.median(greys[60:180] - GREYS[60:180], axis=0)
  fits = np.ptp(shift) and all(
    np.array_equal(np.clip(before + shift, 0, 255), after)
    for before, after in ((GREYS, greys), (COLOURS, colours))
  )
  return shift if fits else np.full(3, np.nan)


def hsv_of(greys, colours):
  """What was added to hue, of 180, saturation and value, of 255, or nan."""
  shift = to_hsv(colours) - to_hsv(COLOURS)
  shift[:, 0] = (shift[:, 0] + 90) % 180 - 90
  shift = np.median(shift, axis=0)
  expected = to_rgb(to_hsv(COLOURS) + shift)
  # Greys take the saturation too, and value.
  value, least = greys.max(axis=1), greys.min(axis=1)
  pale = 255 * (1 - least[60:180] / np.maximum(value[60:180], 1))
  fits = (
    np.abs(value - np.clip(RAMP + shift[2], 0, 255)).max() < 1.5
    and np.abs(pale - max(shift[1], 0)).max() < 5
    and np.abs(expected - colours).max() < 6
  )
  return shift if fits else np.full(3, np.nan)


def to_hsv(colours):
  hsv = [colorsys.rgb_to_hsv(*(c / 255)) for c in colours]
  return np.array(hsv) * (180, 255, 255)


def to_rgb(hsv):
  hue, saturation, value = (hsv / (180, 255, 255)).T
  parts = hue % 1, np.clip(saturation, 0, 1), np.clip(value, 0, 1)
  rgb = [colorsys.hsv_to_rgb(*c) for c in zip(*parts, strict=True)]
  return np.array(rgb) * 255


@functools.cache
def alone():
  """Draws in which one change of colour stands alone, by its name.

  Returns:
    {name: strengths [N, ...]}, and under 'none' the number of draws without
    any.
  """
  _, _, greys, colours = draws()
  found = {'gamma': [], 'line': [], 'shift': [], 'hsv': [], 'none': 0}
  for grey, colour in zip(greys, colours, strict=True):
    if np.array_equal(grey, GREYS) and np.array_equal(colour, COLOURS):
      found['none'] += 1
      continue
    for name, strength in (
      ('gamma', gamma_of(grey)),
      ('shift', shift_of(grey, colour)),
      ('line', line_of(grey, colour)),
      ('hsv', hsv_of(grey, colour)),
    ):
      if not np.isnan(strength).any():
        found[name].append(strength)
        break
  return {name: np.asarray(strengths) for name, strengths in found.items()}


def assert_uniform(values, most, middle=0.0):
  """Holds values to a uniform distribution over middle +- most."""
  values = np.asarray(values) - middle
  # Not the ends: a few draws are taken for what they are not.
  low, high = np.quantile(values, (0.01, 0.99))
  assert 0.93 * most < high < 1.03 * most
  assert 0.93 * most < -low < 1.03 * most
  assert abs(values.mean()) < 0.12 * most
  assert 0.43 * most < np.abs(values).mean() < 0.57 * most


def test_half_of_the_photos_are_flipped():
  flips, _, _, _ = draws()
  assert abs(flips.mean() - 0.5) < 0.03
  image = probe()
  first = [
    transforms.augment(image, IDS, np.random.default_rng(seed), 'flip')[1][0, 0]
    for seed in range(DRAWS)
  ]
  assert set(first) == {0, SIDE - 1}
  assert abs(np.mean(np.array(first) > 0) - 0.5) < 0.03


def test_three_of_ten_are_rotated_by_up_to_20_degrees():
  _, angles, _, _ = draws()
  rotated = np.abs(angles) > 0.2
  # The ids of the smallest rotations stay where they were.
  assert abs(rotated.mean() - 0.3 * 0.97) < 0.03
  assert_uniform(angles[rotated], 20)


@pytest.mark.parametrize(
  ('name', 'share', 'middle', 'most'),
  [
    ('gamma', 0.3, [1.0], [0.2]),
    ('line', 0.3, [1.0, 0.0], [0.2, 0.2]),  # contrast, brightness
    ('hsv', 0.3, [0.0] * 3, [20, 30, 20]),
    ('shift', 0.1, [0.0], [20]),  # red, green and blue alike
  ],
)
def test_how_often_and_how_strong_each_change_of_colour_is(
  name, share, middle, most
):
  found = alone()
  once = len(found[name])
  assert abs(once / (once + found['none']) - share) < 0.05
  for values, centre, reach in zip(
    found[name].reshape(-1, len(most)).T, middle, most, strict=True
  ):
    assert_uniform(values, reach, centre)


def test_red_green_and_blue_shift_each_on_its_own():
  assert np.mean(np.ptp(alone()['shift'], axis=1) > 3) > 0.8
