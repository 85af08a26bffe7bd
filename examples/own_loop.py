"""Bit diffusion in a training loop of your own, with any model.

python examples/own_loop.py [STEPS]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bitseg_jax import codec, diffusion, metrics, palette, sampler, schedule
from bitseg_jax.data.procedural import ProceduralScenes

noise, bits = schedule.Schedule(), codec.make_codec('analog_bits', num_codes=4)
grid = palette.make_palette(4, 'similar')
scenes = [ProceduralScenes(512, 16, max_entities=3)[i] for i in range(512)]
images = jnp.stack([s['image'] for s in scenes]) / 127.5 - 1
ids = [s['id_maps'][0] for s in scenes]
x = bits.encode(jnp.stack([palette.assign_codes(i, grid) for i in ids]))

widths = [nn.Conv(width, (5, 5)) for width in (48, 48, 48, bits.channels)]
net = nn.Sequential([f for w in widths for f in (w, nn.silu)][:-1])  # any model
time = lambda z, t: jnp.broadcast_to(t[:, None, None, None], (*z.shape[:3], 1))
join = lambda z_t, image, t: jnp.concatenate([z_t, image, time(z_t, t)], -1)
model = lambda params, *seen: net.apply(params, join(*seen))
denoise = diffusion.make_denoiser(model, noise)  # predicts x_hat
optimizer = optax.adam(1e-3)


@jax.jit
def step(params, state, key):
  keys = jax.random.split(key, 3)
  i = jax.random.randint(keys[0], (32,), 64, 512)  # 0 to 63 are held out
  t = diffusion.stratified_times(keys[1], 32)
  alpha, sigma = (f(t)[:, None, None, None] for f in (noise.alpha, noise.sigma))
  eps = jax.random.normal(keys[2], x[i].shape)
  z_t = diffusion.q_sample(x[i], eps, alpha, sigma)
  error = lambda p: jnp.mean((denoise(p, z_t, images[i], t) - x[i]) ** 2)
  loss, gradient = jax.value_and_grad(error)(params)
  update, state = optimizer.update(gradient, state)
  return optax.apply_updates(params, update), state, loss


params = net.init(jax.random.key(0), jnp.zeros((1, 16, 16, bits.channels + 4)))
state = optimizer.init(params)
for k in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
  params, state, loss = step(params, state, jax.random.key(k))

draw = sampler.guided(denoise, params, images[:64], guidance_weight=0)
x_hat = sampler.sample(draw, jax.random.key(1), x[:64].shape, noise)
pairs = zip(ids, np.asarray(bits.decode(x_hat)), strict=False)
ari = np.mean([metrics.adjusted_rand_index(*pair) for pair in pairs])
print(f'loss {loss:.3f}, ARI of 64 scenes never seen {ari:.2f}')
