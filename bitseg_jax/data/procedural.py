"""Dataset of procedural scenes: textured shapes with exact id maps, no files.

A scene is drawn back to front in relative coordinates (pixel centres at
(c + 0.5) / size), so that it looks alike at any size. A shape is a field of
signed distances (positive inside), a texture one of mixes of two colours.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

MIN_AREA = 0.015  # least visible share of the picture of an entity
_TEXTURES = 'flat', 'gradient', 'stripes', 'checker', 'spots', 'noise'


@dataclasses.dataclass(frozen=True)
class ProceduralScenes:
  """Random-access dataset of scenes, each drawn from the seed and its index.

  Scene i depends on (seed, i, size, max_entities) alone, and is {'name': str,
  'image': uint8 [size, size, 3], 'id_maps': [int32 [size, size]]}. Ids are 0
  (the background), 1, 2, ... from back to front without gaps. An entity that
  another one divides keeps one id.
  """

  num_scenes: int
  size: int = 32  # side of the square picture in pixels, >= 8
  max_entities: int = 6  # with the background, >= 2
  seed: int = 0

  def __post_init__(self) -> None:
    if self.size < 8 or self.max_entities < 2:
      raise ValueError(f'{self}: use size >= 8 and max_entities >= 2')

  def __len__(self) -> int:
    return self.num_scenes

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < self.num_scenes:
      raise IndexError(f'no scene {index} in {self}')
    rng = np.random.default_rng([self.seed, index])
    image, id_map = _draw_scene(rng, self.size, self.max_entities)
    name = f'procedural_{self.seed}_{index:06d}'
    return {'name': name, 'image': image, 'id_maps': [id_map]}


def _draw_scene(rng, size, max_entities):
  """Draws image and id map; only the noise, drawn last, depends on size."""
  x, y = np.meshgrid(_centres(size), _centres(size))
  num_entities = int(rng.integers(2, max_entities + 1))
  distances = _draw_layout(rng, x, y, num_entities)
  # Each colour is the most distinct of four from those before.
  candidates = rng.uniform(0.08, 0.92, (num_entities, 4, 3)).astype(np.float32)
  colours = candidates[:1, 0]
  for options in candidates[1:]:
    gaps = ((options[:, None] - colours) ** 2).sum(-1).min(-1)
    colours = np.concatenate([colours, options[gaps.argmax()][None]])
  textures = [_draw_texture(rng, x, y, colour) for colour in colours]

  kept, id_map = _drop_small(distances)
  image = textures[0]  # [3, H, W]: numpy is slow over a last axis of 3.
  for k in kept:
    # Blends the border over one pixel, as a camera does; ids stay sharp.
    coverage = np.clip(distances[k - 1] * size + 0.5, 0, 1)
    image += coverage * (textures[k] - image)

  angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.4)
  slope_x = np.float32(strength * np.cos(angle))
  slope_y = np.float32(strength * np.sin(angle))
  image *= 1 + slope_x * (x - 0.5) + slope_y * (y - 0.5)
  noise_level = np.float32(rng.uniform(0.005, 0.03))
  image += noise_level * rng.standard_normal(image.shape, dtype=np.float32)
  image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
  return np.ascontiguousarray(image.transpose(1, 2, 0)), id_map


def _centres(size):
  return (np.arange(size, dtype=np.float32) + 0.5) / size


def _drop_small(distances):
  """Removes shapes, the smallest first, until what is seen covers MIN_AREA.

  If the background is too small, the largest shape goes.
  """
  kept = list(range(1, len(distances) + 1))
  while True:
    id_map = np.zeros(distances[0].shape, np.int32)
    for new_id, k in enumerate(kept, start=1):
      id_map[distances[k - 1] > 0] = new_id
    areas = np.bincount(id_map.ravel(), minlength=len(kept) + 1)
    smallest = int(areas.argmin())
    if areas[smallest] >= MIN_AREA * id_map.size:
      return kept, id_map
    del kept[(smallest or int(areas.argmax())) - 1]


def _draw_layout(rng, x, y, num_entities):
  """Draws the signed distances of the entities in front of the background."""
  distances, placed = [], []
  if rng.random() < 0.3:  # the half plane below a slightly tilted horizon
    tilt, height = rng.uniform(-0.3, 0.3), rng.uniform(0.35, 0.75)
    _, below = _turned(x - np.float32(0.5), y - np.float32(height), -tilt)
    distances.append(below)
  while len(distances) < num_entities - 1:
    # Crowded scenes get smaller shapes, or the last one would hide the others.
    radius = rng.uniform(0.14, 0.32 - 0.015 * min(num_entities, 8))
    cx, cy = _draw_position(rng, placed, radius)
    placed.append((cx, cy, radius))
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    angle = rng.uniform(0, 2 * np.pi)
    turned = _turned(x - np.float32(cx), y - np.float32(cy), angle)
    distances.append(shape(rng, *turned, radius))
  return distances


def _draw_position(rng, placed, radius):
  """Draws a place beside an earlier shape, or the emptiest of three places."""
  if placed and rng.random() < 0.4:
    cx, cy, other = placed[rng.integers(len(placed))]
    angle = rng.uniform(0, 2 * np.pi)
    reach = rng.uniform(0.7, 1.0) * (radius + other)
    cx, cy = cx + reach * np.cos(angle), cy + reach * np.sin(angle)
    if 0.1 < cx < 0.9 and 0.1 < cy < 0.9:
      return cx, cy
  room = lambda c: min(
    ((c[0] - p[0]) ** 2 + (c[1] - p[1]) ** 2 for p in placed), default=0
  )
  return max(rng.uniform(0.12, 0.88, (3, 2)).tolist(), key=room)


def _turned(x, y, angle):
  cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
  return cos * x + sin * y, cos * y - sin * x


def _ellipse(rng, x, y, radius):
  a, b = np.float32(radius * 1.1), np.float32(radius * rng.uniform(0.55, 1.1))
  level = np.sqrt((x / a) ** 2 + (y / b) ** 2)
  slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2)
  # A first-order distance is exact on the border, where the blending uses it.
  return (1 - level) * level / (slope + np.float32(1e-6))


def _rectangle(rng, x, y, radius):
  a, b = radius * rng.uniform(0.85, 1.1), radius * rng.uniform(0.45, 0.95)
  corner = radius * rng.uniform(0, 0.3)
  qx = np.abs(x) - np.float32(a - corner)
  qy = np.abs(y) - np.float32(b - corner)
  outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
  return np.float32(corner) - outside - np.minimum(np.maximum(qx, qy), 0)


def _polygon(rng, x, y, radius):
  count = int(rng.integers(3, 7))
  jitter = rng.uniform(-0.25, 0.25, count)
  angles = (np.arange(count) + jitter) * (2 * np.pi / count)
  # A triangle reaches twice as far as its inner circle.
  reach = radius * (1.15 * np.cos(np.pi / count) + 0.05)
  sides = (np.float32(reach) - _turned(x, y, angle)[0] for angle in angles)
  return functools.reduce(np.minimum, sides)


def _blob(rng, x, y, radius):
  theta = np.arctan2(y, x)
  outline = np.float32(radius)
  for order, most in ((2, 0.25), (3, 0.2), (5, 0.08)):
    height, phase = rng.uniform(0, most * radius), rng.uniform(0, 2 * np.pi)
    wave = np.cos(order * theta + np.float32(phase))
    outline = outline + np.float32(height) * wave
  return outline - np.sqrt(x * x + y * y)


_SHAPES = _ellipse, _rectangle, _polygon, _blob


def _draw_texture(rng, x, y, colour):
  """Mixes the colour with a lighter or darker one, float32 [3, H, W]."""
  kind = _TEXTURES[rng.integers(len(_TEXTURES))]
  # Shifts away from the nearer of black and white to keep the texture visible.
  sign = 1 if colour.sum() < 1.5 else -1
  shift = sign * rng.uniform(0.12, 0.3) + rng.uniform(-0.06, 0.06, 3)
  x, y = _turned(x, y, rng.uniform(0, np.pi))

  def wave(along, period):
    phase = rng.uniform(0, 2 * np.pi)
    return np.sin(along * np.float32(2 * np.pi / period) + np.float32(phase))

  if kind == 'flat':
    mix = np.zeros_like(x)
  elif kind == 'gradient':
    mix = np.clip(x * np.float32(rng.uniform(0.8, 1.6)), -0.3, 1.3)
  elif kind == 'stripes':
    mix = np.clip(0.5 + 2 * wave(x, rng.uniform(0.1, 0.25)), 0, 1)
  elif kind == 'checker':
    period = rng.uniform(0.16, 0.32)
    mix = np.clip(0.5 + 4 * wave(x, period) * wave(y, period), 0, 1)
  elif kind == 'spots':
    period = rng.uniform(0.12, 0.24)
    waves = wave(x, period) + wave(y, period)
    mix = np.clip(0.5 + 3 * (waves - np.float32(0.8)), 0, 1)
  else:  # noise: knots, smoothed by a separable Gaussian along the picture
    knots = np.linspace(-0.05, 1.05, 9, dtype=np.float32)
    weights = np.exp(-(((_centres(len(x))[:, None] - knots) * 10) ** 2))
    weights /= np.sqrt((weights**2).sum(1, keepdims=True))
    values = rng.standard_normal((9, 9), dtype=np.float32)
    smooth = weights @ values @ weights.T
    mix = np.float32(0.5) + np.float32(0.45) * smooth
  return colour[:, None, None] + shift.astype(np.float32)[:, None, None] * mix
