"""The networks, by the name that `config.model.name` gives.

A network is a Flax module: (z_t [B, H, W, C], image [B, H, W, 3], t [B]) ->
output [B, H, W, out_channels], built from the config's `model` section.
"""

from bitseg_jax.models.unet import UNet

MODELS = {'unet': UNet}
