"""Layers of the attn-UNet (sec. 4.1), on channels-last [B, H, W, C] arrays.

Parameters, normalisation statistics, softmax and the embedding of time are
float32 whatever the compute dtype. What blocks hand on has the compute dtype:
between operations it is what moves through memory.

A folded array is [B, H, W / n, n C]: n neighbouring columns lie side by side in
its channels. In row-major order it is the same memory. TPUs keep channels in
tiles of 128, of which 64 fill a half, and two columns of 64 the whole.
"""

import functools
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


def fold(x: jax.Array, columns: int) -> jax.Array:
  """Folds columns: [B, H, W, C] to [B, H, W / columns, columns C]."""
  b, h, w, c = x.shape
  return x.reshape(b, h, w // columns, columns * c)


def unfold(x: jax.Array, columns: int) -> jax.Array:
  """Inverts `fold`."""
  b, h, w, c = x.shape
  return x.reshape(b, h, w * columns, c // columns)


def fold_kernel(
  kernel: jax.Array, stride: int, fold_in: int, fold_out: int
) -> tuple[jax.Array, tuple[int, int]]:
  """Makes the kernel that does on folded arrays what `kernel` does on others.

  Args:
    kernel: [h, w, C, D], w odd, for zeros around the image.
    stride: of the columns; stride * fold_out is a multiple of fold_in.
    fold_in: columns folded in the input.
    fold_out: columns folded in the output.

  Returns:
    (kernel [h, w', fold_in, C, fold_out, D], zeros left and right).
  """
  h, w, c, d = kernel.shape
  if fold_in == fold_out == 1:
    return kernel[:, :, None, :, None], (w // 2, w // 2)
  # Column g of the output sees columns stride g + k - w // 2 of the input.
  seen = {
    (g, k): divmod(stride * g + k - w // 2, fold_in)
    for g in range(fold_out)
    for k in range(w)
  }
  first, last = min(seen.values())[0], max(seen.values())[0]
  shape = h, last - first + 1, fold_in, c, fold_out, d
  folded = jnp.zeros(shape, kernel.dtype)
  for (g, k), (place, inner) in seen.items():
    folded = folded.at[:, place - first, inner, :, g].set(kernel[:, k])
  return folded, (-first, last)


class Conv(nn.Module):
  """Convolution with bias, and size // 2 zeros on every side of the image.

  'SAME' would pad strided ones at the end only, unlike the official code.

  Attributes:
    features: channels of the output, those of one column.
    size: side of the kernel, odd.
    stride: of rows and columns.
    fold_in: columns folded in the input, see fold_kernel.
    fold_out: columns folded in the output.
    twice: the input is not folded; each of its columns stands for the two
      equal ones of a folded input, fold_in = 2.
    dtype: compute dtype.
    kernel_init: initial values of the kernel.
  """

  features: int
  size: int = 3
  stride: int = 1
  fold_in: int = 1
  fold_out: int = 1
  twice: bool = False
  dtype: jnp.dtype = jnp.float32
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H / stride, W / stride, features]."""
    inputs = x.shape[-1] if self.twice else x.shape[-1] // self.fold_in
    shape = self.size, self.size, inputs, self.features
    kernel = self.param('kernel', self.kernel_init, shape).astype(self.dtype)
    bias = self.param('bias', zeros, (self.features,)).astype(self.dtype)
    kernel, columns = fold_kernel(
      kernel, self.stride, self.fold_in, self.fold_out
    )
    if self.twice:  # both are the same, so their weights add up
      kernel = kernel.sum(2, keepdims=True)
    h, w, a, c, g, d = kernel.shape
    y = jax.lax.conv_general_dilated(
      x.astype(self.dtype),
      kernel.reshape(h, w, a * c, g * d),
      (self.stride, self.stride * self.fold_out // self.fold_in),
      ((h // 2, h // 2), columns),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return y + jnp.tile(bias, self.fold_out)


def concatenate(x: jax.Array, y: jax.Array, columns: int) -> jax.Array:
  """Concatenates the channels of two arrays with as many folded columns."""
  pairs = zip(*(jnp.split(a, columns, axis=-1) for a in (x, y)), strict=True)
  return jnp.concatenate([a for pair in pairs for a in pair], axis=-1)


class GroupNorm(nn.Module):
  """Group normalisation with gcd(32, channels) groups and learned affine.

  flax's sums over pixels and channels of a group at once, in an array of five
  axes. Here each channel is summed over its pixels first: XLA:CPU takes half
  the time for it, and for its gradient.

  Attributes:
    dtype: of the result. With half the size, its gradient too is written and
      read with half the bytes.
    fold: columns folded in the array.
    epsilon: added to the variance.
  """

  dtype: jnp.dtype = jnp.float32
  fold: int = 1
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to the same shape; computes in float32."""
    channels = x.shape[-1] // self.fold
    scale = self.param('scale', nn.initializers.ones_init(), (channels,))
    bias = self.param('bias', zeros, (channels,))
    groups = math.gcd(32, channels)

    def of_group(each):
      each = each.reshape(-1, self.fold, groups, channels // groups)
      return jnp.repeat(each.mean((1, 3)), channels // groups, axis=-1)

    x = x.astype(jnp.float32)
    mean = of_group(x.mean((1, 2)))
    variance = of_group(jnp.square(x).mean((1, 2))) - jnp.square(mean)
    factor = jax.lax.rsqrt(jnp.maximum(variance, 0) + self.epsilon) * scale
    each = jnp.stack([factor, bias - mean * factor])
    factor, shift = jnp.tile(each, self.fold)[:, :, None, None]
    return (x * factor + shift).astype(self.dtype)


def silu(x: jax.Array) -> jax.Array:
  """Computes SiLU in float32; the result has the dtype of x."""
  return nn.silu(x.astype(jnp.float32)).astype(x.dtype)


class ResBlock(nn.Module):
  """Residual block: norm-SiLU-conv, plus time, norm-SiLU-conv (init 0).

  Attributes:
    channels: of the output.
    dtype: compute dtype.
    fold: columns folded in input and output.
  """

  channels: int
  dtype: jnp.dtype = jnp.float32
  fold: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, emb: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C_in] and time emb [B, E] to [B, H, W, channels]."""
    norm = functools.partial(GroupNorm, self.dtype, self.fold)
    conv = functools.partial(
      Conv,
      self.channels,
      fold_in=self.fold,
      fold_out=self.fold,
      dtype=self.dtype,
    )
    h = conv(name='conv_in')(silu(norm(name='norm_in')(x)))
    shift = nn.Dense(self.channels, name='time')(nn.silu(emb))
    h = h + jnp.tile(shift, self.fold)[:, None, None, :].astype(h.dtype)
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
  """Layer that halves the resolution by a strided convolution.

  Attributes:
    dtype: compute dtype.
    fold: columns folded in the input; the output has none.
  """

  dtype: jnp.dtype = jnp.float32
  fold: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, H / 2, W / 2, C]."""
    channels = x.shape[-1] // self.fold
    return Conv(
      channels, stride=2, fold_in=self.fold, dtype=self.dtype, name='conv'
    )(x)


class Upsample(nn.Module):
  """Layer that doubles the resolution: nearest neighbour, then a conv.

  Attributes:
    dtype: compute dtype.
    fold: columns folded in the output, 1 or 2; the input has none.
  """

  dtype: jnp.dtype = jnp.float32
  fold: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, 2 H, 2 W, C]."""
    b, h, w, c = x.shape
    twice = 2 // self.fold  # a folded output sees both from one column
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, twice, c))
    return Conv(
      c,
      fold_in=self.fold,
      fold_out=self.fold,
      twice=self.fold == 2,
      dtype=self.dtype,
      name='conv',
    )(x.reshape(b, 2 * h, twice * w, c))
