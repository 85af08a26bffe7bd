"""The small network that the authors' code was recorded with."""

import numpy as np
from ml_collections import ConfigDict

from bitseg_jax.configs import base

UNET = 'third_party/towardsdiff/unet.npz'


def official_model() -> tuple[dict[str, np.ndarray], ConfigDict]:
  """Returns (its state dict, drawn as when recorded; config of the network)."""
  with np.load(UNET) as golden:
    rng = np.random.default_rng(int(golden['seed']))
    tensors = {}
    for name, shape in zip(golden['names'], golden['shapes'], strict=True):
      shape = [int(n) for n in shape.strip('[]').split(',')]
      w = rng.standard_normal(shape)
      if len(shape) > 1:
        w = w / np.sqrt(np.prod(shape[1:]))
      else:
        w = 1 + 0.1 * w if name.endswith('.weight') else 0.1 * w
      tensors[str(name)] = w.astype(np.float32)
    config = base.get_config()
    config.data.image_size = int(golden['image_size'])
    config.model.base_channels = int(golden['num_channels'])
    config.model.num_res_blocks = int(golden['num_res_blocks'])
    config.model.channel_mults = (1, 2, 2, 2)
    config.model.attention_levels = (2, 3)
  return tensors, config
