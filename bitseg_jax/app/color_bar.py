"""The legend of a picture of uncertainty."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bitseg_jax.evaluation import pictures


def put_below(picture: np.ndarray) -> np.ndarray:
  """Puts a bar of its colours below a picture of `pictures.uncertainty_map`.

  Args:
    picture: uint8 [h, w, 3].

  Returns:
    uint8 [h + some, max(w, 100), 3]; the picture is where it was.
  """
  height, width = picture.shape[:2]
  width = max(width, 100)
  size = max(11, round(width / 40))  # of text, to be read where it is shrunk
  page = Image.new('RGB', (width, height + 2 * size), 'white')
  page.paste(Image.fromarray(picture), (0, 0))
  draw = ImageDraw.Draw(page)
  font = ImageFont.load_default(size=size)
  wide = width >= 30 * size
  low, high = ('0 certain', '1 uncertain') if wide else ('0', '1')
  middle = height + size
  draw.text((size // 2, middle), low, fill='#222222', font=font, anchor='lm')
  right = width - size // 2
  draw.text((right, middle), high, fill='#222222', font=font, anchor='rm')
  start = round(size + draw.textlength(low, font))
  stop = round(right - size / 2 - draw.textlength(high, font))
  bar = pictures.uncertainty_map(np.linspace(0, 1, stop - start)[None])
  bar = np.repeat(bar, size, axis=0)
  page.paste(Image.fromarray(bar), (start, middle - size // 2))
  return np.asarray(page)
