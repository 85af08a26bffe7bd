"""The denoising networks, listed by their names in `config.model.name`.

A network is a Flax module built from the config's `model` section. It maps
(z_t [B, H, W, C], image [B, H, W, 3], t [B]) to [B, H, W, out_channels].
"""

from bitseg_jax.models.unet import UNet

MODELS = {'unet': UNet}
