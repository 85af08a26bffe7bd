"""The attn-UNet that denoises codes given an image (sec. 4.1)."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from bitseg_jax.models import layers


class UNet(nn.Module):
  """UNet with residual blocks and self-attention on the deepest levels.

  The stem, each block on the way down and each downsampling leave a skip. On
  the way up each block takes concat(h, skip), and each level has one block more
  than on the way down.

  Patches above 1 make it cheaper and coarser (Hoogeboom et al., "simple
  diffusion", 2023).
  """

  out_channels: int  # of the codes, C
  base_channels: int = 64  # of the first level
  channel_mults: Sequence[int] = (1, 2, 2, 4, 4)  # width of each level
  num_res_blocks: int = 3  # in each level on the way down
  # Levels, 0 the finest, with attention after each block; then the middle too.
  attention_levels: Sequence[int] = (3, 4)
  num_heads: int = 4
  patch_size: int = 1  # side of the squares of pixels that are one position
  dtype: jnp.dtype = jnp.float32  # of compute; the output is float32

  @nn.compact
  def __call__(
    self, z_t: jax.Array, seen: jax.Array, t: jax.Array
  ) -> jax.Array:
    """Predicts x, eps or v as float32 [B, H, W, C].

    Args:
      z_t: noisy codes, float [B, H, W, C]; H and W are divisible by
        patch_size * 2^(levels - 1).
      seen: what is seen of the photograph: its normalised pixels, float
        [B, H, W, 3], or [B, H / patch_size, W / patch_size, any] from an
        encoder; zeros for no photograph.
      t: time in [0, 1], float [B].
    """
    emb = layers.time_features(t, self.base_channels)
    wide = functools.partial(nn.Dense, emb.shape[-1] * 4)
    emb = wide(name='time_1')(nn.silu(wide(name='time_0')(emb)))
    attention = functools.partial(
      layers.AttentionBlock, self.num_heads, self.dtype
    )

    def res(h, level, name):
      width = self.base_channels * self.channel_mults[level]
      return layers.ResBlock(width, self.dtype, name=name)(h, emb)

    def block(h, level, name):
      h = res(h, level, f'{name}_res')
      if level in self.attention_levels:
        h = attention(name=f'{name}_attn')(h)
      return h

    if seen.shape[:3] == z_t.shape[:3]:
      h = jnp.concatenate([z_t, seen], axis=-1)
      h = layers.to_patches(h, self.patch_size)
    else:  # what an encoder saw, one vector for each patch
      h = layers.to_patches(z_t, self.patch_size)
      h = jnp.concatenate([h, seen], axis=-1)
    stem = layers.conv(self.base_channels, dtype=self.dtype, name='stem')
    h = stem(h.astype(self.dtype))
    skips = [h]
    deepest = len(self.channel_mults) - 1
    for level in range(deepest + 1):
      for i in range(self.num_res_blocks):
        h = block(h, level, f'down_{level}_{i}')
        skips.append(h)
      if level < deepest:
        h = layers.Downsample(self.dtype, name=f'down_{level}')(h)
        skips.append(h)

    h = res(h, deepest, 'middle_0_res')
    if self.attention_levels:
      h = attention(name='middle_attn')(h)
    h = res(h, deepest, 'middle_1_res')
    for level in reversed(range(deepest + 1)):
      for i in range(self.num_res_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(h, level, f'up_{level}_{i}')
      if level > 0:
        h = layers.Upsample(self.dtype, name=f'up_{level}')(h)

    h = layers.silu(layers.GroupNorm(self.dtype, name='norm_out')(h))
    channels = self.out_channels * self.patch_size**2
    # In float32, as is the output: of so few channels it costs nothing.
    h = layers.conv(channels, kernel_init=layers.zeros, name='conv_out')(h)
    return layers.from_patches(h, self.patch_size)
