"""Dataset of scenes whose annotators disagree by known probabilities.

Every scene holds three things that people annotate in different ways:

  a bar of two colours  is two entities with probability 3/4 where the colours
                        differ much, and 1/4 where they differ little
  a disc with a shadow  the shadow is an entity with probability 3/4 where it is
                        dark, and 1/4 where it is faint; else it is ground
  a blurred disc        is outlined tight, in the middle or wide, with
                        probabilities 1/4, 1/2 and 1/4

Annotators decide on each independently, so a scene has twelve possible
annotations, whose probabilities are exactly known.
"""

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

OUTLINES = 'tight', 'middle', 'wide'
_OUTLINE_SHARES = np.array([0.25, 0.5, 0.25])
_RADIUS, _BLUR = 0.14, 0.05  # of the blurred disc, as shares of the side


class Modes(NamedTuple):
  """All annotations that a scene may get.

  Ids: 0 ground, 1 bar, 2 its second part, 3 disc, 4 shadow, 5 blurred disc.
  Choices: if the bar is parted, if the shadow counts, the index of the outline.
  """

  id_maps: np.ndarray  # int32 [M, size, size]
  probabilities: np.ndarray  # float64 [M], which add up to 1
  choices: np.ndarray  # int [M, 3]


@dataclasses.dataclass(frozen=True)
class AmbiguousScenes:
  """Random-access dataset of scenes, each drawn from the seed and its index.

  A scene is {'name': str, 'image': uint8 [size, size, 3], 'id_maps': a list of
  num_annotators int32 [size, size]}, each one of its modes.
  """

  num_scenes: int
  size: int = 32  # side of the square picture in pixels, >= 16
  num_annotators: int = 1  # drawn for each scene
  seed: int = 0

  def __post_init__(self) -> None:
    if self.size < 16 or self.num_annotators < 1:
      raise ValueError(f'{self}: use size >= 16 and num_annotators >= 1')

  def __len__(self) -> int:
    return self.num_scenes

  def __getitem__(self, index: int) -> dict[str, Any]:
    image, modes = self._draw(index)
    rng = np.random.default_rng([self.seed, index, 1])
    count, shares = self.num_annotators, modes.probabilities
    id_maps = list(rng.choice(modes.id_maps, count, p=shares))
    name = f'ambiguous_{self.seed}_{index:06d}'
    return {'name': name, 'image': image, 'id_maps': id_maps}

  def modes(self, index: int) -> Modes:
    """Returns all annotations that a scene may get, and how likely each is."""
    return self._draw(index)[1]

  def _draw(self, index):
    if not 0 <= index < self.num_scenes:
      raise IndexError(f'no scene {index} in {self}')
    return _draw_scene(np.random.default_rng([self.seed, index]), self.size)


def _draw_scene(rng, size):
  centres = (np.arange(size) + 0.5) / size
  x, y = np.meshgrid(centres, centres)
  # Each thing has a quarter of the picture to itself, so that none is hidden.
  ends = 0.25, 0.75
  corners = rng.permutation([(a, b) for b in ends for a in ends])
  places = corners[:3] + rng.uniform(-0.03, 0.03, (3, 2))
  colours = [rng.uniform(0.6, 0.9, 3)]  # a light ground
  while len(colours) < 4:  # and three others, each far from those before
    options = rng.uniform(0.1, 0.9, (8, 3))
    gaps = np.linalg.norm(options[:, None] - np.array(colours), axis=-1)
    colours.append(options[gaps.min(axis=1).argmax()])
  parted, shadowed = rng.random(2) < 0.5  # whether that is likely
  image = np.broadcast_to(colours[0], (size, size, 3)).copy()

  angle = rng.uniform(0, 2 * np.pi)
  dx, dy = x - places[0][0], y - places[0][1]
  along = np.cos(angle) * dx + np.sin(angle) * dy
  across = np.cos(angle) * dy - np.sin(angle) * dx
  bar = (abs(along) < 0.18) & (abs(across) < 0.09)
  second = bar & (along > 0)
  step = (0.35 if parted else 0.12) * rng.choice([-1, 1], 3)
  step = np.where(abs(colours[1] + step - 0.5) > 0.5, -step, step)
  image[bar] = colours[1]
  image[second] = colours[1] + step

  angle = rng.uniform(0, 2 * np.pi)
  towards = 0.06 * np.array([np.cos(angle), np.sin(angle)])
  near, far = places[1] - towards, places[1] + towards
  disc = np.hypot(x - near[0], y - near[1]) < 0.11
  shadow = (np.hypot(x - far[0], y - far[1]) < 0.11) & ~disc
  image[shadow] *= 0.4 if shadowed else 0.75
  image[disc] = colours[2]

  distance = np.hypot(x - places[2][0], y - places[2][1])
  cover = np.clip((_RADIUS - distance) / (2 * _BLUR) + 0.5, 0, 1)[..., None]
  image += cover * (colours[3] - image)
  image += rng.uniform(0.005, 0.02) * rng.standard_normal(image.shape)
  image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)

  outlines = [distance < _RADIUS + d for d in (-_BLUR, 0, _BLUR)]
  likely = np.where([parted, shadowed], 0.75, 0.25)  # independently
  shares = *np.stack([1 - likely, likely], axis=1), _OUTLINE_SHARES
  probabilities = [math.prod(each) for each in itertools.product(*shares)]
  choices = list(itertools.product((False, True), (False, True), range(3)))
  id_maps = []
  for part, shade, outline in choices:
    on_top = outlines[outline], disc, shadow & shade, second & part, bar
    id_maps.append(np.select(on_top, (5, 3, 4, 2, 1)).astype(np.int32))
  modes = Modes(np.stack(id_maps), np.array(probabilities), np.array(choices))
  return image, modes
