"""One jitted, sharded step of training: loss, gradient, update, average."""

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from bitseg_jax import diffusion
from bitseg_jax.codec import Codec
from bitseg_jax.data import transforms
from bitseg_jax.runtime import experiment, sharding, train_state
from bitseg_jax.runtime.train_state import TrainState
from bitseg_jax.schedule import Schedule, loss_weight

Inputs = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def make_corrupt_fn(
  schedule: Schedule,
  codec: Codec,
  cond_drop_rate: float = 0.05,
  size_power: float = 0.0,
  self_conditioning: bool = False,
) -> Callable[..., Inputs]:
  """Returns corrupt_fn(batch, key) -> inputs of the loss (sec. 3.1).

  The batch holds image uint8 [B, S, S, 3] and codes int [B, S, S]. The inputs
  are x and z_t [B, S, S, C], the normalised image [B, S, S, 3], t [B], and
  valid, bool [B, S, S]: -1 in codes (padding, unlabelled) counts nowhere. With
  size_power also pixel_weight, see diffusion.size_weights; with
  self_conditioning also sees_itself, bool [B], half of them.
  """

  def corrupt_fn(batch, key):
    key_t, key_eps, key_drop = jax.random.split(key, 3)
    codes = batch['codes'].astype(jnp.int32)
    x = codec.encode(codes)
    image = transforms.normalize_image(batch['image'])
    # Guidance needs the model without image too: a few see zeros instead.
    keep = jax.random.bernoulli(key_drop, 1 - cond_drop_rate, (len(x),))
    t = diffusion.stratified_times(key_t, len(x))
    eps = jax.random.normal(key_eps, x.shape)
    at_t = t[:, None, None, None]
    z_t = diffusion.q_sample(x, eps, schedule.alpha(at_t), schedule.sigma(at_t))
    inputs = {
      'x': x,
      'z_t': z_t,
      'image': image * keep[:, None, None, None],
      't': t,
      'valid': codes >= 0,
    }
    if size_power:
      inputs['pixel_weight'] = diffusion.size_weights(
        codes, codec.num_codes, size_power
      )
    if self_conditioning:
      key_itself = jax.random.fold_in(key, 3)
      inputs['sees_itself'] = jax.random.bernoulli(key_itself, 0.5, (len(x),))
    return inputs

  return corrupt_fn


def make_loss_fn(
  denoise: Callable[..., jax.Array],
  schedule: Schedule,
  weight_kind: str = 'sigmoid',
  weight_bias: float = -4.0,
  decoupled: bool = True,
  kind: str = 'squared',
) -> Callable[..., jax.Array]:
  """Returns loss_fn(params, inputs) -> float32 [] (sec. 3.3)."""

  def loss_fn(params, inputs):
    t = inputs['t']
    args = params, inputs['z_t'], inputs['image'], t
    if 'sees_itself' in inputs:
      # As in sampling, but from the same z_t, and without a gradient.
      x_before = jnp.zeros_like(inputs['x'])
      x_before = jax.lax.stop_gradient(denoise(*args, x_before))
      args += (x_before * inputs['sees_itself'][:, None, None, None],)
    x_hat = denoise(*args)
    weight = loss_weight(schedule, t, weight_kind, weight_bias, decoupled)
    losses = diffusion.denoising_loss(
      x_hat,
      inputs['x'],
      weight,
      inputs['valid'],
      inputs.get('pixel_weight'),
      kind,
    )
    return jnp.mean(losses)

  return loss_fn


def accumulated(
  loss_fn: Callable[..., jax.Array], params: Any, inputs: Inputs, parts: int
) -> tuple[jax.Array, Any]:
  """Loss and gradient of a batch, taken in parts one after the other.

  Args:
    loss_fn: (params, inputs) -> loss, a mean over the rows.
    params: parameters.
    inputs: pytree of arrays [B, ...].
    parts: number of parts; divides B.

  Returns:
    (loss, gradient), those of the whole batch.
  """
  gradient_fn = jax.value_and_grad(loss_fn)
  if parts == 1:
    return gradient_fn(params, inputs)
  # Every part takes rows of every device, so that none has to move.
  split = jax.tree.map(
    lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), inputs
  )
  unroll = _loops_are_slow()

  def add(total, part):
    if unroll:
      part = _once_known(total, part)
    return jax.tree.map(jnp.add, total, gradient_fn(params, part)), None

  zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
  total, _ = jax.lax.scan(add, zero, split, unroll=unroll)
  return jax.tree.map(lambda value: value / parts, total)


def _loops_are_slow():
  """XLA:CPU convolves over ten times slower in a loop (jax issue 12868)."""
  return jax.default_backend() == 'cpu'


def _once_known(known, arrays):
  """The floating arrays, which nothing can use before all of `known` is there.

  XLA:CPU drops optimization barriers; a product by 0 it cannot drop. Without it
  all parts would go side by side and keep as much as the whole batch.
  """
  zero = 0 * sum(jnp.ravel(leaf)[0] for leaf in jax.tree.leaves(known))
  return jax.tree.map(
    lambda a: a + zero if jnp.issubdtype(a.dtype, jnp.floating) else a, arrays
  )


def make_train_step(
  corrupt_fn: Callable[..., Inputs],
  loss_fn: Callable[..., jax.Array],
  optimizer: optax.GradientTransformation,
  ema_decay: float,
  mesh: Mesh,
  state_shardings: Any = None,
  accumulate: int = 1,
  steps_per_call: int = 1,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Compiles one step of training, or several in a row, over a mesh.

  Args:
    corrupt_fn: (batch, key) -> inputs.
    loss_fn: (params, inputs) -> loss.
    optimizer: as from train_state.make_optimizer.
    ema_decay: final decay of the parameter average.
    mesh: devices.
    state_shardings: where the state lies; None = a copy on every device.
    accumulate: parts that a batch is taken in; all of them lead to one update.
    steps_per_call: K, over 1 for models whose step is shorter than calling it.

  Returns:
    step(state, batch, key) -> (state, {'loss', 'grad_norm'}); key is that of
    the run, the step number is folded in. The state given is donated. With K
    over 1 the batches [K, B, ...] are stacked, and so are the metrics, [K].
  """

  def step(state, batch, key):
    inputs = corrupt_fn(batch, jax.random.fold_in(key, state.step))
    loss, grads = accumulated(loss_fn, state.params, inputs, accumulate)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new_state = TrainState(
      step=state.step + 1,
      params=params,
      ema_params=train_state.update_ema(
        state.ema_params, params, state.step, ema_decay
      ),
      opt_state=opt_state,
    )
    return new_state, {'loss': loss, 'grad_norm': optax.global_norm(grads)}

  def steps(state, batches, key):
    one = lambda state, batch: step(state, batch, key)
    return jax.lax.scan(one, state, batches, unroll=_loops_are_slow())

  copied = sharding.copied_on(mesh)
  placement = state_shardings or copied
  stacked = steps_per_call > 1
  return jax.jit(
    steps if stacked else step,
    in_shardings=(placement, sharding.split_on(mesh, stacked), copied),
    out_shardings=(placement, copied),
    donate_argnums=0,
  )


def compile_ahead(
  function: Callable[..., Any], *args: Any
) -> Callable[..., Any]:
  """Compiles a jitted function for these arguments, ahead of the first call.

  Args:
    function: jitted, as from make_train_step.
    args: of the call, or their jax.ShapeDtypeStruct.

  Returns:
    The program, to be called with the like of args.
  """
  program = function.lower(*args).compile()
  # What compiling took, a GiB for the paper's model, glibc would keep. Other C
  # libraries have no such function.
  with contextlib.suppress(OSError, AttributeError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)
  return program


def make_loss(
  settings: ConfigDict, parts: experiment.Experiment
) -> tuple[Callable[..., Inputs], Callable[..., jax.Array]]:
  """Returns (corrupt_fn, loss_fn) of the config's `diffusion` section."""
  corrupt_fn = make_corrupt_fn(
    parts.schedule,
    parts.codec,
    settings.cond_drop_rate,
    settings.size_power,
    settings.self_conditioning,
  )
  loss_fn = make_loss_fn(
    parts.denoise,
    parts.schedule,
    settings.loss_weight,
    settings.loss_bias,
    settings.decoupled,
    settings.loss,
  )
  return corrupt_fn, loss_fn


def make_step_fn(
  config: ConfigDict,
  parts: experiment.Experiment,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  abstract: TrainState,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Compiles the training step that a config describes."""
  return make_train_step(
    *make_loss(config.diffusion, parts),
    optimizer,
    config.train.ema_decay,
    mesh,
    sharding.shardings(abstract),
    config.train.accumulate,
    config.train.steps_per_call,
  )
