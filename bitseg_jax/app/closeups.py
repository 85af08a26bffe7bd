"""Five parts of a photo in which the model sees more detail.

Their samples join the consensus of the whole photo.
"""

from bitseg_jax.evaluation.consensus import Box

_SHARE = 0.7  # of the sides of what it is a close-up of
_PLACES = (0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)  # corners and middle


def boxes(size: tuple[int, int]) -> list[Box]:
  """Boxes of the close-ups of a photo of size (H, W)."""
  h, w = (max(1, round(_SHARE * side)) for side in size)
  corners = [
    (int(down * (size[0] - h)), int(across * (size[1] - w)))
    for down, across in _PLACES
  ]
  return [(y, x, y + h, x + w) for y, x in corners]


def scaled(box: Box, size: tuple[int, int], small: tuple[int, int]) -> Box:
  """A box of a photo as it lies in a small copy, of one pixel at least."""
  start, end = [], []
  for axis, (old, new) in enumerate(zip(size, small, strict=True)):
    start.append(min(round(box[axis] * new / old), new - 1))
    end.append(max(start[-1] + 1, round(box[axis + 2] * new / old)))
  return (*start, *end)
