"""One training step, jitted and sharded: from a batch to the new state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bitseg_jax import diffusion
from bitseg_jax.runs import devices, train_state
from bitseg_jax.runs.build import Experiment, Recipe
from bitseg_jax.runs.train_state import TrainState
from bitseg_jax.schedule import loss_weight

Arrays = dict[str, jax.Array]


def make_step(
  parts: Experiment,
  recipe: Recipe,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  state_shardings: Any = None,
  target_fn: Callable[..., jax.Array] | None = None,
) -> Callable[..., tuple[TrainState, Arrays]]:
  """Compiles one training step over a mesh.

  Args:
    parts: of the run; code side G, C channels.
    recipe: how it learns; D = recipe.draws.
    optimizer: as from train_state.make_optimizer.
    mesh: as from devices.make_mesh.
    state_shardings: sharding of the state; None = a copy on every device.
    target_fn: (teacher's parameters, image, z_t, t, valid) -> x_hat, which is
      learned in the place of the codes, see distill.py. The step then takes the
      teacher's parameters as well.

  Returns:
    step(state, batch, key, *teacher) -> (state, {'loss', 'grad_norm'}), float32
    [] each. The batch holds image, uint8 [B, S, S, 3], and codes, int
    [B, G, G], where -1 (padding, unlabelled) is ignored. The key is that of the
    run. The given state is donated.
  """

  def step(state, batch, key, *teacher):
    # 1. Draw times and noise for D rows of each photo; of some rows it learns
    #    without the photo, which guidance needs.
    noise = draw_noise(
      jax.random.fold_in(key, state.step),
      (*batch['codes'].shape, parts.codec.channels),
      recipe.draws,
      # A student learns its teacher's guidance, which has the photo.
      0.0 if target_fn else recipe.cond_drop_rate,
      recipe.num_times,
    )
    # 2. Compute loss and gradient (loss_fn has lines 3 to 8).
    loss, grads = accumulated(
      lambda params, rows: loss_fn(
        params, rows, parts, recipe, target_fn, *teacher
      ),
      state.params,
      {**batch, **noise},
      recipe.accumulate,
      # Loops are slow on CPU: 10 times for convolutions (jax issue 12868).
      unroll=mesh.devices.flat[0].platform == 'cpu',
    )
    # 9. Update the parameters, and their average.
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = train_state.update_ema(
      state.ema_params, params, state.step, recipe.ema_decay
    )
    new_state = TrainState(state.step + 1, params, average, opt_state)
    return new_state, {'loss': loss, 'grad_norm': optax.global_norm(grads)}

  copied = devices.copied_on(mesh)
  placement = state_shardings or copied
  split, teacher = devices.split_on(mesh), [copied] * bool(target_fn)
  return jax.jit(
    step,
    in_shardings=(placement, split, copied, *teacher),
    out_shardings=(placement, copied),
    donate_argnums=0,
    compiler_options=devices.compiler_options(mesh),
  )


def draw_noise(
  key: jax.Array,
  shape: tuple[int, int, int, int],
  draws: int = 1,
  cond_drop_rate: float = 0.05,
  num_times: int | None = None,
) -> Arrays:
  """Draws all that is random in a training step.

  Args:
    key: PRNG key.
    shape: (B, G, G, C), that of the bits of a batch.
    draws: D, how often each photo is used with other times and noise.
    cond_drop_rate: share of rows that learn without their photo, in [0, 1].
    num_times: draw only the times at which one of so many sampler steps begins;
      None: any time in [0, 1).

  Returns:
    t float32 [B, D], eps float32 [B, D, G, G, C] and keep, bool [B, D], whether
    the row sees its photo.
  """
  key_t, key_eps, key_keep = jax.random.split(key, 3)
  rows = shape[0] * draws
  t = diffusion.stratified_times(key_t, rows)
  if num_times:
    t = (jnp.floor(t * num_times) + 1) / num_times
  eps = jax.random.normal(key_eps, (rows, *shape[1:]), jnp.float32)
  keep = jax.random.bernoulli(key_keep, 1 - cond_drop_rate, (rows,))
  return {
    name: a.reshape(-1, draws, *a.shape[1:])
    for name, a in {'t': t, 'eps': eps, 'keep': keep}.items()
  }


def loss_fn(
  params: Any,
  batch: Arrays,
  parts: Experiment,
  recipe: Recipe,
  target_fn: Callable[..., jax.Array] | None = None,
  *teacher: Any,
) -> jax.Array:
  """Returns the training loss of a batch with its noise (sec. 3.3), float32 [].

  Args:
    params: parameters of the network.
    batch: image uint8 [B, S, S, 3], codes int [B, G, G], and what draw_noise
      gives for them.
    parts, recipe, target_fn: see make_step.
    *teacher: parameters of the teacher, if there is one.
  """
  draws = batch['t'].shape[1]
  each_draw = lambda a: jnp.repeat(a, draws, axis=0)  # [B, ...] to [B D, ...]
  rows = lambda a: a.reshape(-1, *a.shape[2:])  # [B, D, ...] to [B D, ...]
  # 3. Encode the codes as bits -1 and 1; ignored pixels are 0.
  codes = batch['codes'].astype(jnp.int32)  # [B, G, G]
  x = each_draw(parts.codec.encode(codes))  # [B D, G, G, C]
  valid = each_draw(codes >= 0)
  # 4. Encode each photo once.
  seen = each_draw(parts.encode(params, batch['image']))  # [B D, ...]
  keep = rows(batch['keep']).reshape(-1, *[1] * (seen.ndim - 1))
  # 5. Noise the bits: z_t = alpha x + sigma eps (Eq. 1).
  t = rows(batch['t'])  # [B D]
  at_t = t[:, None, None, None]
  alpha, sigma = parts.schedule.alpha(at_t), parts.schedule.sigma(at_t)
  z_t = diffusion.q_sample(x, rows(batch['eps']), alpha, sigma)
  # 6. Predict the clean bits.
  x_hat = parts.denoise(params, z_t, seen * keep.astype(seen.dtype), t)
  # 7. A student learns what its teacher makes of z_t instead.
  if target_fn:
    x = target_fn(*teacher, batch['image'], z_t, t, valid)
  # 8. Weigh the squared error by noise level, over valid pixels.
  weight = loss_weight(parts.schedule, t, *recipe.loss_weight)
  return jnp.mean(diffusion.denoising_loss(x_hat, x, weight, valid))


def accumulated(
  loss_fn: Callable[..., jax.Array],
  params: Any,
  batch: Any,
  parts: int,
  unroll: bool = False,
) -> tuple[jax.Array, Any]:
  """Computes loss and gradient of a batch as the mean over microbatches.

  Args:
    loss_fn: (params, batch) -> loss, a mean over the rows.
    params: pytree of parameters.
    batch: pytree of arrays [B, ...].
    parts: number of microbatches, computed one after the other; divides B.
    unroll: write them out instead of looping.

  Returns:
    (loss float32 [], gradient like params) of the whole batch.
  """
  gradient_fn = jax.value_and_grad(loss_fn)
  if parts == 1:
    return gradient_fn(params, batch)
  # Each microbatch takes rows from every device, so that no row has to move.
  split = jax.tree.map(
    lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), batch
  )

  def add(total, part):
    if unroll:
      # Unless a part depends on the total before it, XLA:CPU computes all of
      # them side by side, in the memory of a whole batch. It drops optimization
      # barriers, but not a product by 0.
      zero = 0 * sum(jnp.ravel(leaf)[0] for leaf in jax.tree.leaves(total))
      part = jax.tree.map(
        lambda a: a + zero if jnp.issubdtype(a.dtype, jnp.floating) else a, part
      )
    return jax.tree.map(jnp.add, total, gradient_fn(params, part)), None

  zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
  total, _ = jax.lax.scan(add, zero, split, unroll=unroll)
  return jax.tree.map(lambda value: value / parts, total)
