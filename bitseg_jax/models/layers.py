"""Layers of the attn-UNet (sec. 4.1), on channels-last [B, H, W, C] arrays.

Parameters, normalisation statistics, softmax and the embedding of time are
float32 whatever the compute dtype. What blocks hand on has the compute dtype:
between operations it is what moves through memory.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

zeros = nn.initializers.zeros_init()
IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)


def normalize_image(image: jax.Array) -> jax.Array:
  """Normalises photographs, uint8 [..., 3], to float32 (ImageNet's way)."""
  return (image.astype(np.float32) / 255 - IMAGE_MEAN) / IMAGE_STD


def time_features(
  t: jax.Array, channels: int, max_period: float = 10.0
) -> jax.Array:
  """Embeds times in [0, 1], [B], as cos(t f_k) and sin(t f_k), [B, channels].

  The frequencies are f_k = max_period^(-k / half).
  """
  half = channels // 2
  frequencies = max_period ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angles = t[:, None].astype(jnp.float32) * frequencies
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def to_patches(x: jax.Array, size: int) -> jax.Array:
  """Patches to channels: [B, H, W, C] to [B, H/size, W/size, size^2 C]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // size, size, w // size, size, c)
  return x.swapaxes(2, 3).reshape(b, h // size, w // size, size**2 * c)


def from_patches(x: jax.Array, size: int) -> jax.Array:
  """Inverts `to_patches`: [B, H, W, size^2 C] to [B, H size, W size, C]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, size, size, c // size**2)
  return x.swapaxes(2, 3).reshape(b, h * size, w * size, c // size**2)


def conv(features: int, size: int = 3, stride: int = 1, **options) -> nn.Conv:
  """Makes a convolution with size // 2 zeros on every side of the image.

  'SAME' would pad strided ones at the end only, unlike the official code.
  """
  return nn.Conv(features, (size, size), stride, size // 2, **options)


class GroupNorm(nn.Module):
  """Group normalisation with gcd(32, channels) groups and learned affine.

  Each channel is summed over its pixels before its group is: XLA:CPU takes half
  the time of flax's for it and its gradient. dtype is that of the result.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to the same shape; computes in float32."""
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones_init(), (channels,))
    bias = self.param('bias', zeros, (channels,))
    groups = math.gcd(32, channels)

    def of_group(each):
      each = each.reshape(-1, groups, channels // groups)
      return jnp.repeat(each.mean(2), channels // groups, axis=-1)

    x = x.astype(jnp.float32)
    mean = of_group(x.mean((1, 2)))
    variance = of_group(jnp.square(x).mean((1, 2))) - jnp.square(mean)
    factor = jax.lax.rsqrt(jnp.maximum(variance, 0) + 1e-5) * scale
    shift = bias - mean * factor
    x = x * factor[:, None, None] + shift[:, None, None]
    return x.astype(self.dtype)


def silu(x: jax.Array) -> jax.Array:
  """Computes SiLU in float32; the result has the dtype of x."""
  return nn.silu(x.astype(jnp.float32)).astype(x.dtype)


class ResBlock(nn.Module):
  """Residual block: norm-SiLU-conv, plus time, norm-SiLU-conv (init 0)."""

  channels: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, emb: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C_in] and time emb [B, E] to [B, H, W, channels]."""
    norm = functools.partial(GroupNorm, self.dtype)
    to_channels = functools.partial(conv, self.channels, dtype=self.dtype)
    h = to_channels(name='conv_in')(silu(norm(name='norm_in')(x)))
    shift = nn.Dense(self.channels, name='time')(nn.silu(emb))
    h = h + shift[:, None, None, :].astype(h.dtype)
    h = silu(norm(name='norm_out')(h))
    h = to_channels(kernel_init=zeros, name='conv_out')(h)
    if x.shape != h.shape:
      x = to_channels(size=1, name='skip')(x)
    return x + h


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes attention of q, k, v [B, T, N, D], N heads; softmax in float32."""
  # Scaling both q and k keeps the products small in low precision.
  scale = q.shape[-1] ** -0.25
  q, k = q * scale, k * scale
  logits = jnp.einsum(
    'bqhd,bkhd->bhqk', q, k, preferred_element_type=jnp.float32
  )
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum('bhqk,bkhd->bqhd', weights, v)


class AttentionBlock(nn.Module):
  """Residual self-attention over all pixels."""

  num_heads: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to the same shape."""
    b, height, width, c = x.shape
    d = c // self.num_heads
    h = GroupNorm(self.dtype, name='norm')(x).reshape(b, height * width, c)
    qkv = nn.Dense(3 * c, dtype=self.dtype, name='qkv')(h)
    # Head-major: each head holds its own q, k and v, as in the official code.
    q, k, v = jnp.moveaxis(
      qkv.reshape(b, height * width, self.num_heads, 3, d), 3, 0
    )
    h = attend(q, k, v).reshape(b, -1, c)
    h = nn.Dense(c, dtype=self.dtype, kernel_init=zeros, name='out')(h)
    return x + h.reshape(x.shape)


class Downsample(nn.Module):
  """Layer that halves the resolution by a strided convolution."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H / 2, W / 2, C]."""
    return conv(x.shape[-1], stride=2, dtype=self.dtype, name='conv')(x)


class Upsample(nn.Module):
  """Layer that doubles the resolution: nearest neighbour, then a conv."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, 2 H, 2 W, C]."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return conv(c, dtype=self.dtype, name='conv')(x.reshape(b, 2 * h, 2 * w, c))
