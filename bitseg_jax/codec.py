"""Converts codes to continuous channels and back (sec. 3.2).

A code is an integer in [0, num_codes); -1 marks a pixel without one. `encode`
turns codes into the x of the diffusion, and `decode` turns x_hat into codes.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2

# The UniGS palette: a code is three base-5 digits, and each digit is a level.
RGB_LEVELS = np.array([0, 64, 128, 192, 255], np.float32)


@dataclasses.dataclass(frozen=True)
class Codec:
  """The functions that convert num_codes codes to C channels and back.

  Attributes:
    encode: codes int [..., H, W] -> float32 [..., H, W, C] in [-1, 1]; pixels
      with code -1 become 0.
    decode: x float [..., H, W, C] -> codes int32 [..., H, W].
    probabilities: x float [..., H, W, C] in [-1, 1] -> float32
      [..., H, W, num_codes], summing to 1.
  """

  num_codes: int
  channels: int
  encode: Callable[[jax.Array], jax.Array]
  decode: Callable[[jax.Array], jax.Array]
  probabilities: Callable[[jax.Array], jax.Array]


def make_codec(encoding: str, num_codes: int) -> Codec:
  """Returns the codec of the named encoding.

  Args:
    encoding: 'analog_bits' (log2(num_codes) channels), 'onehot' (num_codes
      channels) or 'rgb' (3 channels, at most 125 codes; its decode clusters
      colours on the host and cannot run inside jit).
    num_codes: number of codes, at least 2; a power of two for analog bits.

  Raises:
    ValueError: if the encoding is unknown or cannot represent num_codes.
  """
  if num_codes < 2:
    raise ValueError(f'num_codes is {num_codes}; it must be at least 2')
  if encoding not in ENCODINGS:
    raise ValueError(
      f'unknown encoding {encoding!r}; choose one of {", ".join(ENCODINGS)}'
    )
  return ENCODINGS[encoding](num_codes)


def _blank_ignored(x, codes):
  return jnp.where(codes[..., None] >= 0, x, 0.0)


def _analog_bits(num_codes):
  num_bits = num_codes.bit_length() - 1
  if 1 << num_bits != num_codes:
    raise ValueError(
      f'num_codes is {num_codes}; analog bits need a power of two'
    )

  def encode(codes):
    # Least significant bit first, 0 -> -1 and 1 -> +1.
    bits = (codes[..., None] >> jnp.arange(num_bits)) & 1
    return _blank_ignored(2.0 * bits - 1, codes)

  def decode(x):
    bits = (jnp.asarray(x) > 0).astype(jnp.int32)
    return jnp.sum(bits << jnp.arange(num_bits), axis=-1)

  def probabilities(x):
    # Eq. 3, prod_i (1 - |b_i - x_i| / 2). After i bits p holds the 2^i partial
    # products, so the last step costs as much as all the others together.
    p = jnp.ones((*x.shape[:-1], 1), jnp.float32)
    one = (1 + jnp.clip(x, -1, 1)) / 2
    for i in range(num_bits):
      bit = one[..., i : i + 1]
      p = jnp.concatenate([p * (1 - bit), p * bit], axis=-1)
    return p

  return Codec(num_codes, num_bits, encode, decode, probabilities)


def _onehot(num_codes):
  def encode(codes):
    return _blank_ignored(2 * jax.nn.one_hot(codes, num_codes) - 1, codes)

  def decode(x):
    return jnp.argmax(x, axis=-1).astype(jnp.int32)

  def probabilities(x):
    # The channels are independent in [-1, 1]. The 1e-6 makes a pixel that is
    # -1 in all of them uniform instead of 0 / 0.
    p = (1 + jnp.clip(x, -1, 1)) / 2 + 1e-6
    return p / jnp.sum(p, axis=-1, keepdims=True)

  return Codec(num_codes, num_codes, encode, decode, probabilities)


def _rgb(num_codes):
  if num_codes > len(RGB_LEVELS) ** 3:
    raise ValueError(
      f'num_codes is {num_codes}; the rgb encoding has '
      f'{len(RGB_LEVELS) ** 3} colours, use fewer codes or another encoding'
    )
  digits = np.stack([np.arange(num_codes) // 5**i % 5 for i in range(3)], -1)
  colors = RGB_LEVELS[digits]  # [num_codes, 3] in [0, 255]
  scaled = colors / 127.5 - 1

  def encode(codes):
    return _blank_ignored(jnp.asarray(scaled)[jnp.maximum(codes, 0)], codes)

  def decode(x):
    pixels = (np.asarray(x, np.float32) + 1) * 127.5
    images = pixels.reshape(-1, *pixels.shape[-3:])
    decoded = [_dichotomy_codes(image, colors) for image in images]
    return np.array(decoded, np.int32).reshape(pixels.shape[:-1])

  def probabilities(x):
    # Each channel is split linearly between its two nearest levels, as Eq. 3
    # does between -1 and +1. Colours beyond num_codes are left out.
    level = (jnp.clip(x, -1, 1) + 1) * 127.5
    knots = jnp.asarray(RGB_LEVELS)
    upper = jnp.clip(jnp.searchsorted(knots, level, side='right'), 1, 4)
    part = (level - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
    p = (1 - part)[..., None] * jax.nn.one_hot(upper - 1, 5)
    p = p + part[..., None] * jax.nn.one_hot(upper, 5)  # [..., 3, 5]
    red, green, blue = (p[..., i, :] for i in range(3))
    joint = jnp.einsum('...b,...g,...r->...bgr', blue, green, red)
    joint = joint.reshape(*x.shape[:-1], -1)[..., :num_codes] + 1e-6
    return joint / jnp.sum(joint, axis=-1, keepdims=True)

  return Codec(num_codes, 3, encode, decode, probabilities)


def _dichotomy_codes(image, colors):
  """Decodes colours by splitting clusters until each is tight (UniGS).

  Both are float in [0, 255], [H, W, 3] and [num_codes, 3]. The largest cluster
  comes first; each takes the code of the colour nearest to its mean, or a new
  number >= num_codes if a larger cluster has that code already, so that
  clusters never merge. Returns int32 [H, W].
  """
  pixels = image.reshape(-1, 3)

  def split(index, depth):
    """Yields the tight clusters among the pixels of these indices."""
    members = pixels[index]
    offset = members - members.mean(axis=0)
    spread = np.linalg.norm(offset, axis=1).mean()
    if spread > 10 and depth < 10 and len(index) >= 20:
      # Starting 2-means at both ends of the principal axis is deterministic.
      axis = np.linalg.svd(np.cov(offset.T))[0][:, 0]
      ends = members[[np.argmin(offset @ axis), np.argmax(offset @ axis)]]
      side = kmeans2(members, ends, iter=20, minit='matrix')[1]
      if 0 < side.sum() < len(side):
        yield from split(index[side == 1], depth + 1)
        yield from split(index[side == 0], depth + 1)
        return
    yield index

  codes = np.empty(len(pixels), np.int32)
  taken = set()
  clusters = split(np.arange(len(pixels)), 0)
  for index in sorted(clusters, key=len, reverse=True):
    center = pixels[index].mean(axis=0)
    code = int(np.argmin(np.linalg.norm(colors - center, axis=1)))
    if code in taken:
      code = len(colors) + len(taken)
    taken.add(code)
    codes[index] = code
  return codes.reshape(image.shape[:2])


ENCODINGS = {'analog_bits': _analog_bits, 'onehot': _onehot, 'rgb': _rgb}
