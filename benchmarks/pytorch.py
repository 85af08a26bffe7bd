"""Times this network beside one of the same shapes in PyTorch, in turn.

python benchmarks/pytorch.py [--rounds=3] [--what=forward,step,sample]
  [--config=configs/main.py] [--config.train.batch_size=8]

It needs torch, which the project does not install. The PyTorch network is
given our weights under the names of the authors' code; the two outputs are
compared before anything is timed. Then each round runs every part once in JAX
and once in PyTorch, so that a machine's busy minutes meet both. The medians and
their ratios are printed; above 1 JAX is faster.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import flags
from ml_collections import ConfigDict, config_flags
from torch import nn
from torch.nn import functional as F

from bitseg_jax import cli
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.models import layers
from bitseg_jax.runs import build, devices, official
from bitseg_jax.training import step

WHAT = ('forward', 'step', 'sample')


def norm(channels: int) -> nn.Module:
  """Returns the group normalisation of layers.group_norm."""
  return nn.GroupNorm(int(np.gcd(32, channels)), channels)


class ResBlock(nn.Module):
  """layers.ResBlock, channels first."""

  def __init__(self, inputs: int, channels: int, emb: int):
    super().__init__()
    conv = nn.Conv2d(inputs, channels, 3, padding=1)
    self.in_layers = nn.Sequential(norm(inputs), nn.SiLU(), conv)
    self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, channels))
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    self.out_layers = nn.Sequential(
      norm(channels), nn.SiLU(), nn.Identity(), conv
    )
    same = inputs == channels
    self.skip_connection = (
      nn.Identity() if same else nn.Conv2d(inputs, channels, 1)
    )

  def forward(self, x, emb):
    h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
    return self.skip_connection(x) + self.out_layers(h)


class AttentionBlock(nn.Module):
  """layers.AttentionBlock, channels first."""

  def __init__(self, channels: int, heads: int):
    super().__init__()
    self.heads, self.norm = heads, norm(channels)
    self.qkv = nn.Conv1d(channels, 3 * channels, 1)
    self.proj_out = nn.Conv1d(channels, channels, 1)

  def forward(self, x, emb):
    flat = x.flatten(2)
    qkv = self.qkv(self.norm(flat)).unflatten(1, (self.heads, 3, -1))
    q, k, v = qkv.transpose(3, 4).unbind(2)
    h = F.scaled_dot_product_attention(q, k, v)
    h = self.proj_out(h.transpose(2, 3).reshape(flat.shape))
    return x + h.view(x.shape)


class Downsample(nn.Module):
  """layers.Downsample, channels first."""

  def __init__(self, channels: int):
    super().__init__()
    self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

  def forward(self, x, emb):
    return self.op(x)


class Upsample(nn.Module):
  """layers.Upsample, channels first."""

  def __init__(self, channels: int):
    super().__init__()
    self.conv = nn.Conv2d(channels, channels, 3, padding=1)

  def forward(self, x, emb):
    return self.conv(F.interpolate(x, scale_factor=2.0))


class Stem(nn.Conv2d):
  """The first convolution, which ignores time."""

  def forward(self, x, emb):
    return super().forward(x)


class UNet(nn.Module):
  """models.UNet, channels first, with the authors' names of its modules."""

  def __init__(self, model: ConfigDict, channels_in: int, channels_out: int):
    super().__init__()
    base, emb = model.base_channels, 4 * model.base_channels
    self.features = base
    self.time_embed = nn.Sequential(
      nn.Linear(base, emb), nn.SiLU(), nn.Linear(emb, emb)
    )

    def block(inputs, level):
      width = base * model.channel_mults[level]
      parts = [ResBlock(inputs, width, emb)]
      if level in model.attention_levels:
        parts.append(AttentionBlock(width, model.num_heads))
      return parts, width

    parts, width, skips = [Stem(channels_in, base, 3, padding=1)], base, [base]
    blocks, deepest = [nn.ModuleList(parts)], len(model.channel_mults) - 1
    for level in range(deepest + 1):
      for _ in range(model.num_res_blocks):
        parts, width = block(width, level)
        blocks.append(nn.ModuleList(parts))
        skips.append(width)
      if level < deepest:
        blocks.append(nn.ModuleList([Downsample(width)]))
        skips.append(width)
    self.input_blocks = nn.ModuleList(blocks)
    self.middle_block = nn.ModuleList(
      [
        ResBlock(width, width, emb),
        AttentionBlock(width, model.num_heads),
        ResBlock(width, width, emb),
      ]
    )
    blocks = []
    for level in reversed(range(deepest + 1)):
      for i in range(model.num_res_blocks + 1):
        parts, width = block(width + skips.pop(), level)
        if level and i == model.num_res_blocks:
          parts.append(Upsample(width))
        blocks.append(nn.ModuleList(parts))
    self.output_blocks = nn.ModuleList(blocks)
    self.out = nn.Sequential(
      nn.Identity(),
      norm(width),
      nn.SiLU(),
      nn.Conv2d(width, channels_out, 3, padding=1),
    )

  def forward(self, z_t, image, features):
    """[B, C, H, W], [B, 3, H, W] and time features [B, E] to [B, C, H, W]."""
    emb, h = self.time_embed(features), torch.cat([z_t, image], 1)
    skips = []
    for block in self.input_blocks:
      for part in block:
        h = part(h, emb)
      skips.append(h)
    for part in self.middle_block:
      h = part(h, emb)
    for block in self.output_blocks:
      h = torch.cat([h, skips.pop()], 1)
      for part in block:
        h = part(h, emb)
    return self.out(h)


def channels_first(x: jax.Array) -> torch.Tensor:
  """Copies [B, H, W, C] to a tensor [B, C, H, W]."""
  return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2).copy())


def make_parts(
  config: ConfigDict, what: list[str]
) -> dict[str, tuple[Callable, Callable]]:
  """Makes what is timed: {name: (in JAX, in PyTorch)}, of equal work.

  Raises:
    ValueError: if the two networks compute different values.
  """
  parts, mesh = build.build(config), devices.make_mesh()
  _, optimizer = build.make_optimizer(config)
  init, abstract = build.make_state(parts, optimizer, mesh)
  state = init(jax.random.key(0))
  # Zeros, with which the blocks begin, would hide mistakes.
  noisy = lambda x: x + 0.02 * jax.random.normal(jax.random.key(2), x.shape)
  state = state.replace(params=jax.tree.map(noisy, state.params))
  scenes = ProceduralScenes(64, parts.image_size, 12)
  batches = build.training_batches(config, [scenes], parts.palette, mesh)
  batch = devices.put_batch(next(iter(batches)), mesh)
  photos, count = batch['image'], config.train.batch_size
  shape = count, parts.code_size, parts.code_size, parts.codec.channels
  z_t, t = jax.random.normal(jax.random.key(0), shape), jnp.full(count, 0.5)
  denoise = jax.jit(
    parts.denoise, compiler_options=devices.compiler_options(mesh)
  )
  args = z_t, jax.jit(parts.encode)(state.params, photos), t
  ours = denoise(state.params, *args)

  network = UNet(config.model, args[0].shape[-1] + 3, ours.shape[-1])
  tensors = official.to_official(state.params, config)
  network.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
  features = layers.time_features(args[2], network.features)
  features = torch.from_numpy(np.array(features))
  inputs = channels_first(args[0]), channels_first(args[1]), features
  with torch.no_grad():
    theirs = network(*inputs)
  theirs = theirs.tanh() if config.diffusion.tanh else theirs
  off = float((theirs - channels_first(ours)).abs().max())
  print(f'largest difference of the two outputs: {off:.2g}')
  if off > 1e-3:
    raise ValueError('the two networks compute different values')

  def forward():
    with torch.no_grad():
      network(*inputs)

  made = {'forward': (lambda: denoise(state.params, *args), forward)}
  if 'sample' in what:
    made['sample'] = (
      make_sampler(config, parts, mesh, state.params),
      lambda: sample(network, *(x[:1] for x in inputs), config.sample),
    )
  if 'step' in what:
    placed, recipe = devices.shardings(abstract), build.make_recipe(config)
    step_fn = step.make_step(parts, recipe, optimizer, mesh, placed)
    made['step'] = make_steps(
      config.train, step_fn, state, batch, network, inputs
    )
  return {name: made[name] for name in what}


def make_sampler(config, parts, mesh, params):
  """Returns our sampler of one image."""
  options = build.SamplerOptions(**config.sample)
  draw = draw_samples.make_functions(parts, options, mesh)
  side = parts.image_size
  image = np.zeros((1, side, side, 3), np.uint8)
  sizes = np.full((1, 2), side, np.int32)
  labels = np.zeros((1, 2), np.int32)

  def sample():
    seen = draw.encode(params, image)
    return draw.sample(params, seen, sizes, labels, np.uint32(1))

  return sample


def sample(network, z, image, features, settings):
  """One guided sample: both branches in a batch at each step."""
  both = torch.cat([image, torch.zeros_like(image)])
  with torch.no_grad():
    for _ in range(settings.num_steps):
      x = network(z.repeat(2, 1, 1, 1), both, features.repeat(2, 1)).tanh()
      w = settings.guidance_weight
      x = ((1 + w) * x[:1] - w * x[1:]).clamp(-1, 1)
      z = 0.7 * z + 0.3 * x  # as much work as a step of DDIM


def make_steps(settings, step_fn, state, batch, network, inputs):
  """Returns a training step of each, with AdamW, clipping and the average."""
  state = jax.tree.map(lambda leaf: leaf.copy(), state)  # a step donates it

  def ours():
    nonlocal state
    state, values = step_fn(state, batch, jax.random.key(2))
    return values

  average = [p.detach().clone() for p in network.parameters()]
  adamw = torch.optim.AdamW(network.parameters(), settings.learning_rate)
  target = torch.sign(inputs[0])

  def theirs():
    x = network(*inputs).tanh()
    F.mse_loss(x, target).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    adamw.step()
    adamw.zero_grad()
    now = [p.detach() for p in network.parameters()]
    torch._foreach_lerp_(average, now, 1 - settings.ema_decay)

  return ours, theirs


def main() -> None:
  """Runs the comparison that the flags describe."""
  f = flags.FLAGS
  for name in f.what:
    if name not in WHAT:
      raise ValueError(f'--what={name}: choose among {", ".join(WHAT)}')
  times = {}
  parts = make_parts(f.config, f.what)
  for number in range(f.rounds + 1):
    for name, calls in parts.items():
      for which, call in zip(('JAX', 'PyTorch'), calls, strict=True):
        time.sleep(0.3)  # until the other's threads have stopped spinning
        began = time.perf_counter()
        jax.block_until_ready(call())
        if number:  # the first round compiles
          took = time.perf_counter() - began
          times.setdefault((name, which), []).append(took)
  print(
    f'{torch.get_num_threads()} threads, torch {torch.__version__}, '
    f'jax {jax.__version__}, batch {f.config.train.batch_size}'
  )
  print(f'{"":10}{"JAX":>10}{"PyTorch":>10}{"ratio":>8}')
  for name in f.what:
    a, b = (np.median(times[name, which]) for which in ('JAX', 'PyTorch'))
    print(f'{name:10}{a:8.2f} s{b:8.2f} s{b / a:8.2f}')


if __name__ == '__main__':
  config_flags.DEFINE_config_file(
    'config', str(cli.CONFIGS / 'main.py'), 'Config of the network.'
  )
  flags.DEFINE_list('what', list(WHAT), f'Parts to time: {", ".join(WHAT)}.')
  flags.DEFINE_integer('rounds', 3, 'Times that each part is run.')
  cli.run(lambda: None, main)
