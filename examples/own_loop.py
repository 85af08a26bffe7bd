"""Bit diffusion in a loop of your own, with any model: own_loop.py [STEPS]."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bitseg_jax import codec, diffusion, metrics, palette, sampler, schedule
from bitseg_jax.data.procedural import ProceduralScenes

noise, bits = schedule.Schedule('cosine', 0.1), codec.make_codec('analog_bits', 4)
grid = palette.make_palette(4, 'similar')
scenes = [ProceduralScenes(512, size=16, max_entities=3)[i] for i in range(512)]
images = jnp.array([s['image'] for s in scenes]) / 127.5 - 1
