"""Bit diffusion in a training loop of your own, some 25 lines long.

python examples/own_loop.py [STEPS]
"""

import sys
from types import SimpleNamespace

import jax
import numpy as np
import optax

from bitseg_jax import codec, diffusion, metrics, palette, sampler, schedule
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.models import UNet, layers
from bitseg_jax.runs.build import Recipe
from bitseg_jax.training.step import draw_noise, loss_fn

noise, bits = schedule.Schedule(), codec.make_codec('analog_bits', num_codes=4)
grid = palette.make_palette(4, 'similar')
scenes = [ProceduralScenes(512, 16, max_entities=3)[i] for i in range(512)]
images = np.stack([s['image'] for s in scenes])  # uint8
codes = np.stack([palette.assign_codes(s['id_maps'][0], grid) for s in scenes])
x = bits.encode(codes[:64])  # the scenes held out

model = UNet(bits.channels, 32, (1, 2), 1, attention_levels=())  # or your own
params = model.init(jax.random.key(0), x, images[:64], np.zeros(64))
parts = SimpleNamespace(
  encode=lambda params, image: layers.normalize_image(image),  # what is seen
  denoise=diffusion.make_denoiser(model.apply, noise),  # gives x_hat
  schedule=noise,
  codec=bits,
)
recipe = Recipe(loss_weight=('uniform', 0.0, False))
optimizer = optax.adam(1e-3)
state = optimizer.init(params)


@jax.jit
def step(params, state, batch, key):
  batch |= draw_noise(key, (*batch['codes'].shape, bits.channels))
  loss, gradient = jax.value_and_grad(loss_fn)(params, batch, parts, recipe)
  update, state = optimizer.update(gradient, state)
  return optax.apply_updates(params, update), state, loss


for k in range(int(sys.argv[1]) if len(sys.argv) > 1 else 400):
  i = np.random.default_rng(k).integers(64, 512, size=32)
  batch = {'image': images[i], 'codes': codes[i]}
  params, state, loss = step(params, state, batch, jax.random.key(k))

seen = parts.encode(params, images[:64])
draw = diffusion.guided(parts.denoise, params, seen, guidance_weight=0)
x_hat = sampler.sample(draw, jax.random.key(1), x.shape, noise)
pairs = zip(codes, np.asarray(bits.decode(x_hat)), strict=False)
ari = np.mean([metrics.adjusted_rand_index(*pair) for pair in pairs])
print(f'loss {loss:.3f}, ARI of 64 scenes never seen {ari:.2f}')
