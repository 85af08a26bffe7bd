"""The paper's main model on EntitySeg (Table 2: ARI .672, IoU .438).

An attn-UNet of 38.5M parameters at 128 px with 6 analog bits, similar palette,
input scale 0.1, x-prediction with tanh, sigmoid loss weight, 300k steps of 8.
"""

from bitseg_jax.configs import base


def get_config():
  """Returns the config."""
  return base.get_config()
