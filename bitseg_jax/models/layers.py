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


class Conv(nn.Module):
  """Convolution with bias, and size // 2 zeros on every side of the image.

  'SAME' would pad strided ones at the end only, unlike the official code.

  Attributes:
    features: channels of the output.
    size: side of the kernel, odd.
    stride: of rows and columns.
    dtype: compute dtype.
    kernel_init: initial values of the kernel.
  """

  features: int
  size: int = 3
  stride: int = 1
  dtype: jnp.dtype = jnp.float32
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H / stride, W / stride, features]."""
    shape = self.size, self.size, x.shape[-1], self.features
    kernel = self.param('kernel', self.kernel_init, shape).astype(self.dtype)
    bias = self.param('bias', zeros, (self.features,)).astype(self.dtype)
    padding = (self.size // 2, self.size // 2)
    y = jax.lax.conv_general_dilated(
      x.astype(self.dtype),
      kernel,
      (self.stride, self.stride),
      (padding, padding),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return y + bias


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
      each = each.reshape(-1, groups, channels // groups)
      return jnp.repeat(each.mean(2), channels // groups, axis=-1)

    x = x.astype(jnp.float32)
    mean = of_group(x.mean((1, 2)))
    variance = of_group(jnp.square(x).mean((1, 2))) - jnp.square(mean)
    factor = jax.lax.rsqrt(jnp.maximum(variance, 0) + self.epsilon) * scale
    shift = bias - mean * factor
    x = x * factor[:, None, None] + shift[:, None, None]
    return x.astype(self.dtype)


def silu(x: jax.Array) -> jax.Array:
  """Computes SiLU in float32; the result has the dtype of x."""
  return nn.silu(x.astype(jnp.float32)).astype(x.dtype)


class ResBlock(nn.Module):
  """Residual block: norm-SiLU-conv, plus time, norm-SiLU-conv (init 0).

  Attributes:
    channels: of the output.
    dtype: compute dtype.
  """

  channels: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, emb: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C_in] and time emb [B, E] to [B, H, W, channels]."""
    norm = functools.partial(GroupNorm, self.dtype)
    conv = functools.partial(Conv, self.channels, dtype=self.dtype)
    h = conv(name='conv_in')(silu(norm(name='norm_in')(x)))
    shift = nn.Dense(self.channels, name='time')(nn.silu(emb))
    h = h + shift[:, None, None, :].astype(h.dtype)
    h = silu(norm(name='norm_out')(h))
    h = conv(kernel_init=zeros, name='conv_out')(h)
    if x.shape != h.shape:
      x = conv(size=1, name='skip')(x)
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
  """Layer that halves the resolution by a strided convolution."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H / 2, W / 2, C]."""
    return Conv(x.shape[-1], stride=2, dtype=self.dtype, name='conv')(x)


class Upsample(nn.Module):
  """Layer that doubles the resolution: nearest neighbour, then a conv."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, 2 H, 2 W, C]."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return Conv(c, dtype=self.dtype, name='conv')(x.reshape(b, 2 * h, 2 * w, c))
