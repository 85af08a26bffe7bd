"""Diffusion over analog bits that segments a whole image, in JAX/Flax."""

__version__ = '0.1.0'

# Label of pixels that belong to nothing: unlabelled, or padding.
IGNORE_ID = -1
