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


def make_step(
  parts: Experiment,
  recipe: Recipe,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  state_shardings: Any = None,
  target_fn: Callable[..., jax.Array] | None = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Compiles one training step over a mesh.

  Args:
    parts, recipe, optimizer: of the run; code side G, C channels, D draws.
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
    # 1. Draw the times and noise of each photo's D rows, and which rows see the
    #    photo: guidance needs some that do not, but a student has it learned.
    rows = len(batch['codes']) * recipe.draws
    shape = rows, *batch['codes'].shape[1:], parts.codec.channels
    key_t, key_eps, key_keep = jax.random.split(
      jax.random.fold_in(key, state.step), 3
    )
    t = diffusion.stratified_times(key_t, rows)  # [B D]
    if recipe.num_times:  # a student's sampler is at these times only
      t = (jnp.floor(t * recipe.num_times) + 1) / recipe.num_times
    eps = jax.random.normal(key_eps, shape, jnp.float32)  # [B D, G, G, C]
    kept_rate = 1.0 if target_fn else 1 - recipe.cond_drop_rate
    keep = jax.random.bernoulli(key_keep, kept_rate, (rows,))  # [B D]

    def loss_fn(params, part):
      t, eps, keep = part['t'], part['eps'], part['keep']
      each_draw = lambda a: jnp.repeat(a, recipe.draws, axis=0)
      # 2. Encode the codes as bits -1 and 1; ignored pixels are 0.
      codes = part['codes'].astype(jnp.int32)  # [B, G, G]
      x = each_draw(parts.codec.encode(codes))  # [B D, G, G, C]
      valid = each_draw(codes >= 0)  # [B D, G, G]
      # 3. Encode each photo once, and hide it from some rows.
      seen = each_draw(parts.encode(params, part['image']))  # [B D, ...]
      keep = keep.reshape(-1, *[1] * (seen.ndim - 1))
      seen = seen * keep.astype(seen.dtype)
      # 4. Noise the bits: z_t = alpha x + sigma eps (Eq. 1).
      at_t = t[:, None, None, None]
      alpha, sigma = parts.schedule.alpha(at_t), parts.schedule.sigma(at_t)
      z_t = diffusion.q_sample(x, eps, alpha, sigma)  # [B D, G, G, C]
      # 5. Predict the clean bits.
      x_hat = parts.denoise(params, z_t, seen, t)  # [B D, G, G, C]
      # 6. A student learns what its teacher makes of z_t instead.
      if target_fn:
        x = target_fn(*teacher, part['image'], z_t, t, valid)
      # 7. Weigh the squared error over valid pixels by noise level (sec. 3.3).
      weight = recipe.loss_weight(parts.schedule, t)  # [B D]
      return jnp.mean(diffusion.denoising_loss(x_hat, x, weight, valid))

    # 8. Compute loss and gradient, in parts where memory is short.
    whole = {**batch, 't': t, 'eps': eps, 'keep': keep}
    loss, grads = mean_gradient(
      loss_fn, state.params, whole, recipe.accumulate, unroll
    )
    # 9. Update the parameters, and their average.
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = train_state.update_ema(
      state.ema_params, params, state.step, recipe.ema_decay
    )
    new_state = TrainState(state.step + 1, params, average, opt_state)
    return new_state, {'loss': loss, 'grad_norm': optax.global_norm(grads)}

  # Loops are slow on CPU: 10 times for convolutions (jax issue 12868).
  unroll = mesh.devices.flat[0].platform == 'cpu'
  copied = devices.copied_on(mesh)
  placement = state_shardings or copied
  teacher = [copied] * bool(target_fn)
  return jax.jit(
    step,
    in_shardings=(placement, devices.split_on(mesh), copied, *teacher),
    out_shardings=(placement, copied),
    donate_argnums=0,
    compiler_options=devices.compiler_options(mesh),
  )


def mean_gradient(
  loss_fn: Callable[..., jax.Array],
  params: Any,
  batch: Any,
  count: int,
  unroll: bool = False,
) -> tuple[jax.Array, Any]:
  """Computes loss and gradient of a batch as the mean over microbatches.

  Args:
    loss_fn: (params, batch) -> loss, a mean over the rows.
    params, batch: pytrees; arrays [B, ...] or [B D, ...], D rows for each of B.
    count: number of microbatches, computed one after the other; divides B.
    unroll: write them out instead of looping.
  """
  gradient_fn = jax.value_and_grad(loss_fn)
  if count == 1:
    return gradient_fn(params, batch)
  rows = min(map(len, jax.tree.leaves(batch)))

  def split(a):
    # Each microbatch takes rows from every device, so that no row has to move.
    a = a.reshape(rows // count, count, len(a) // rows, *a.shape[1:])
    return a.swapaxes(0, 1).reshape(count, -1, *a.shape[3:])

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
  several = jax.tree.map(split, batch)
  total, _ = jax.lax.scan(add, zero, several, unroll=unroll)
  return jax.tree.map(lambda value: value / count, total)
