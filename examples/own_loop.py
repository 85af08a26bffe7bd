"""Bit diffusion in a training loop of your own, some 30 lines long.

python examples/own_loop.py [STEPS]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitseg_jax import codec, diffusion, metrics, palette, sampler, schedule
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.models import UNet, layers

noise, bits = schedule.Schedule(), codec.make_codec('analog_bits', num_codes=4)
grid = palette.make_palette(4, 'similar')
scenes = [ProceduralScenes(512, 16, max_entities=3)[i] for i in range(512)]
images = layers.normalize_image(np.stack([s['image'] for s in scenes]))
codes = np.stack([palette.assign_codes(s['id_maps'][0], grid) for s in scenes])
held_out = images[:64]

model = UNet(bits.channels, 32, (1, 2), 1, attention_levels=())  # or your own
denoise = diffusion.make_denoiser(model.apply, noise)  # gives x_hat
params = jax.jit(model.init)(
  jax.random.key(0), bits.encode(codes[:64]), held_out, np.zeros(64)
)
optimizer = optax.adam(1e-3)
state = optimizer.init(params)


def loss_fn(params, image, codes, key):
  key_t, key_eps = jax.random.split(key)
  x = bits.encode(codes)  # [B, H, W, C]
  t = diffusion.stratified_times(key_t, len(x))  # [B]
  alpha, sigma = (f(t)[:, None, None, None] for f in (noise.alpha, noise.sigma))
  z_t = diffusion.q_sample(x, jax.random.normal(key_eps, x.shape), alpha, sigma)
  x_hat = denoise(params, z_t, image, t)
  weight = schedule.loss_weight(noise, t, 'uniform', decoupled=False)
  return jnp.mean(diffusion.denoising_loss(x_hat, x, weight, codes >= 0))


@jax.jit
def step(params, state, *batch):
  loss, gradient = jax.value_and_grad(loss_fn)(params, *batch)
  update, state = optimizer.update(gradient, state)
  return optax.apply_updates(params, update), state, loss


for k in range(int(sys.argv[1]) if len(sys.argv) > 1 else 400):
  i = np.random.default_rng(k).integers(64, 512, size=32)
  params, state, loss = step(
    params, state, images[i], codes[i], jax.random.key(k)
  )

draw = diffusion.guided_denoiser(denoise, params, held_out, guidance_weight=0)
shape = *codes[:64].shape, bits.channels
x_hat = sampler.sample(draw, jax.random.key(1), shape, noise)
pairs = zip(codes, np.asarray(bits.decode(x_hat)), strict=False)
ari = np.mean([metrics.adjusted_rand_index(*pair) for pair in pairs])
print(f'loss {loss:.3f}, ARI of 64 scenes never seen {ari:.2f}')
