"""The denoising networks, listed by their names in `config.model.name`.

A network is a Flax module built from the config's `model` section. It maps
(z_t [B, H, W, C], seen [B, ...], t [B]) to [B, H, W, out_channels], where seen
is what it sees of the photographs: normalised pixels [B, H, W, 3], or what
encoder.PhotoEncoder makes of them.
"""

from bitseg_jax.models.unet import UNet

MODELS = {
  'unet': UNet,
}
