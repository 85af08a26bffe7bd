"""Layers of the attn-UNet (sec. 4.1), on channels-last [B, H, W, C] arrays.

Parameters, normalisation statistics, softmax and the embedding of time are
float32 whatever the compute dtype. What blocks hand on has the compute dtype:
between operations it is what moves through memory.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

zeros = nn.initializers.zeros_init()


def time_features(
  t: jax.Array, channels: int, max_period: float = 10.0
) -> jax.Array:
  """Embeds diffusion times as the network's time features.

  Args:
    t: times in [0, 1], float [B].
    channels: even number of features; half = channels / 2 frequencies.
    max_period: approximate ratio of the highest to the lowest frequency.

  Returns:
    [cos(t f_k), sin(t f_k)] with f_k = max_period^(-k / half), float32
    [B, channels].
  """
  half = channels // 2
  frequencies = max_period ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angles = t[:, None].astype(jnp.float32) * frequencies
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def to_patches(x: jax.Array, size: int) -> jax.Array:
  """Moves the pixels of each size x size patch to the network's channels.

  Returns:
    x [B, H, W, C] as [B, H / size, W / size, size^2 C], each patch row by row.
  """
  b, h, w, c = x.shape
  x = x.reshape(b, h // size, size, w // size, size, c)
  return x.swapaxes(2, 3).reshape(b, h // size, w // size, size**2 * c)


def from_patches(x: jax.Array, size: int) -> jax.Array:
  """Inverts `to_patches`: [B, H, W, size^2 C] to [B, H size, W size, C]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, size, size, c // size**2)
  return x.swapaxes(2, 3).reshape(b, h * size, w * size, c // size**2)


class GroupNorm(nn.Module):
  """Group normalisation with gcd(32, channels) groups and learned affine.

  flax's sums over pixels and channels of a group at once, in an array of five
  axes. Here each channel is summed over its pixels first: XLA:CPU takes half
  the time for it, and for its gradient.

  Attributes:
    dtype: of the result. With half the size, its gradient too is written and
      read with half the bytes.
    epsilon: added to the variance.
  """

  dtype: jnp.dtype = jnp.float32
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to the same shape; computes in float32."""
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones_init(), (channels,))
    bias = self.param('bias', zeros, (channels,))
    groups = math.gcd(32, channels)

    def of_group(each):
      mean = each.reshape(-1, groups, channels // groups).mean(-1)
      return jnp.repeat(mean, channels // groups, axis=-1)[:, None, None]

    x = x.astype(jnp.float32)
    mean = of_group(x.mean((1, 2)))
    variance = of_group(jnp.square(x).mean((1, 2))) - jnp.square(mean)
    factor = jax.lax.rsqrt(jnp.maximum(variance, 0) + self.epsilon) * scale
    return (x * factor + (bias - mean * factor)).astype(self.dtype)


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
    h = silu(GroupNorm(self.dtype, name='norm_in')(x))
    h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name='conv_in')(h)
    shift = nn.Dense(self.channels, name='time')(nn.silu(emb))
    h = h + shift[:, None, None, :].astype(h.dtype)
    h = silu(GroupNorm(self.dtype, name='norm_out')(h))
    h = nn.Conv(
      self.channels,
      (3, 3),
      dtype=self.dtype,
      kernel_init=zeros,
      name='conv_out',
    )(h)
    if x.shape[-1] != self.channels:
      x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name='skip')(x)
    return x + h


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes scaled dot-product attention with a float32 softmax.

  Args:
    q: queries of N heads, float [B, T, N, D].
    k: keys, shape of q.
    v: values, shape of q.

  Returns:
    [B, T, N, D] with the dtype of v.
  """
  # Scaling both q and k keeps the products small in low precision.
  scale = q.shape[-1] ** -0.25
  logits = jnp.einsum(
    'bqhd,bkhd->bhqk',
    q * scale,
    k * scale,
    preferred_element_type=jnp.float32,
  )
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum('bhqk,bkhd->bqhd', weights, v)


class AttentionBlock(nn.Module):
  """Residual self-attention over all pixels.

  Attributes:
    num_heads: number of attention heads.
    dtype: compute dtype.
    fused: use cuDNN's fused kernel, which keeps no [T, T] array in memory; it
      needs an NVIDIA GPU from Ampere on and half precision.
  """

  num_heads: int
  dtype: jnp.dtype = jnp.float32
  fused: bool = False

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
    if self.fused:
      h = jax.nn.dot_product_attention(q, k, v, implementation='cudnn')
    else:
      h = attend(q, k, v)
    h = h.reshape(b, -1, c)
    h = nn.Dense(c, dtype=self.dtype, kernel_init=zeros, name='out')(h)
    return x + h.reshape(x.shape)


class Downsample(nn.Module):
  """Layer that halves the resolution: strided conv, one pixel of padding."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H / 2, W / 2, C]."""
    # 'SAME' pads at the end only, which would shift the official code's grid.
    return nn.Conv(
      x.shape[-1],
      (3, 3),
      strides=2,
      padding=1,
      dtype=self.dtype,
      name='conv',
    )(x)


class Upsample(nn.Module):
  """Layer that doubles the resolution: nearest neighbour, then a conv."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, 2 H, 2 W, C]."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    x = x.reshape(b, 2 * h, 2 * w, c)
    return nn.Conv(c, (3, 3), dtype=self.dtype, name='conv')(x)
