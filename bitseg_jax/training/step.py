"""One jitted and sharded training step: loss, gradient, update, average."""

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
from bitseg_jax.evaluation import prompts
from bitseg_jax.runs import build, devices, train_state
from bitseg_jax.runs.train_state import TrainState
from bitseg_jax.schedule import Schedule, loss_weight

Inputs = Metrics = dict[str, jax.Array]


def make_corrupt_fn(
  schedule: Schedule,
  codec: Codec,
  cond_drop_rate: float = 0.05,
  size_power: float = 0.0,
  self_conditioning: bool = False,
  prompt_rate: float = 0.0,
  num_steps: int | None = None,
) -> Callable[..., Inputs]:
  """Makes the function that noises a training batch (sec. 3.1).

  Args:
    schedule: noise schedule.
    codec: encodes codes as C channels.
    cond_drop_rate: share of images replaced by zeros, in [0, 1].
    size_power: if not 0, adds pixel_weight, see diffusion.size_weights.
    self_conditioning: whether to add sees_itself.
    prompt_rate: if not 0, the image gets C further channels, see _with_marks.
    num_steps: draw only the times at which one of so many sampler steps begins.

  Returns:
    corrupt_fn(batch, key) -> inputs of the loss. The batch holds image, uint8
    [B, S, S, 3], and codes, int [B, S, S], where -1 (padding, unlabelled) is
    ignored. The inputs hold x and z_t [B, S, S, C], the normalised image
    [B, S, S, 3], t [B], valid, bool [B, S, S], pixel_weight [B, S, S] and
    sees_itself, bool [B], true for about half the rows.
  """

  def corrupt_fn(batch, key):
    key_t, key_eps, key_drop = jax.random.split(key, 3)
    codes = batch['codes'].astype(jnp.int32)
    x = codec.encode(codes)
    image = transforms.normalize_image(batch['image'])
    if prompt_rate:
      image = _with_marks(image, codes, codec, prompt_rate, key)
    # Guidance also needs a model without the image: it learns from zeros.
    keep = jax.random.bernoulli(key_drop, 1 - cond_drop_rate, (len(x),))
    t = diffusion.stratified_times(key_t, len(x))
    if num_steps:
      t = (jnp.floor(t * num_steps) + 1) / num_steps
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


def with_target(
  corrupt_fn: Callable[..., Inputs], target_fn: Callable[..., jax.Array]
) -> Callable[..., Inputs]:
  """Puts a teacher's x_hat in the place of the codes as what is learned.

  Args:
    corrupt_fn: as from make_corrupt_fn.
    target_fn: (teacher's parameters, z_t, image, t, valid) -> x_hat, see
      distill.py.

  Returns:
    corrupt_fn(batch, key, teacher's parameters) -> inputs of the loss.
  """

  def corrupt_for_student(batch, key, teacher):
    inputs = corrupt_fn(batch, key)
    given = (inputs[name] for name in ('z_t', 'image', 't', 'valid'))
    return inputs | {'x': target_fn(teacher, *given)}

  return corrupt_for_student


def _with_marks(image, codes, codec, rate, key):
  """Adds the codes of a few known pixels in this share of the rows."""
  key, count = jax.random.fold_in(key, 4), codec.num_codes
  marks = prompts.draw_marks(key, codes, count, rate)
  return jnp.concatenate([image, codec.encode(marks)], axis=-1)


def make_loss_fn(
  denoise: Callable[..., jax.Array],
  schedule: Schedule,
  weight_kind: str = 'sigmoid',
  weight_bias: float = -4.0,
  decoupled: bool = True,
  kind: str = 'squared',
) -> Callable[..., jax.Array]:
  """Returns the training loss (sec. 3.3): (params, inputs) -> float32 []."""

  def loss_fn(params, inputs):
    t = inputs['t']
    args = params, inputs['z_t'], inputs['image'], t
    if 'sees_itself' in inputs:
      # Unlike in sampling, x_before comes from the same z_t.
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
  loss_fn: Callable[..., jax.Array],
  params: Any,
  inputs: Inputs,
  parts: int,
  unroll: bool = False,
) -> tuple[jax.Array, Any]:
  """Computes loss and gradient of a batch as the mean over microbatches.

  Args:
    loss_fn: (params, inputs) -> loss, a mean over the rows.
    params: pytree of parameters.
    inputs: pytree of arrays [B, ...].
    parts: number of microbatches, computed one after the other; divides B.
    unroll: write them out instead of looping, see _loops_are_slow.

  Returns:
    (loss float32 [], gradient like params) of the whole batch.
  """
  gradient_fn = jax.value_and_grad(loss_fn)
  if parts == 1:
    return gradient_fn(params, inputs)
  # Each microbatch takes rows from every device, so that no row has to move.
  split = jax.tree.map(
    lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), inputs
  )

  def add(total, part):
    if unroll:
      part = _once_known(total, part)
    return jax.tree.map(jnp.add, total, gradient_fn(params, part)), None

  zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
  total, _ = jax.lax.scan(add, zero, split, unroll=unroll)
  return jax.tree.map(lambda value: value / parts, total)


def _loops_are_slow(mesh):
  """Tells if loops are slow: 10x for convolutions on CPU (jax issue 12868)."""
  return mesh.devices.flat[0].platform == 'cpu'


def _once_known(known, arrays):
  """Makes the floating-point arrays depend on all of `known` being computed.

  Otherwise XLA:CPU computes all microbatches side by side, in the memory of a
  whole batch. It drops optimization barriers, but not a product by 0.
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
  takes_teacher: bool = False,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Compiles one training step, or several in a row, over a mesh.

  Args:
    corrupt_fn: (batch, key, *teacher) -> inputs, as from make_corrupt_fn.
    loss_fn: (params, inputs) -> loss, as from make_loss_fn.
    optimizer: as from train_state.make_optimizer.
    ema_decay: final decay of the parameter average, in [0, 1).
    mesh: as from devices.make_mesh.
    state_shardings: sharding of the state; None = a copy on every device.
    accumulate: number of microbatches per update.
    steps_per_call: K; over 1 for models whose step is shorter than a call.
    takes_teacher: whether the step is given a teacher's parameters.

  Returns:
    step(state, batch, key, *teacher) -> (state, {'loss', 'grad_norm'}), float32
    [] each. The key is that of the run; the step number is folded in. The given
    state is donated. If K > 1, batches and metrics are stacks [K, ...].
  """
  unroll = _loops_are_slow(mesh)

  def step(state, batch, key, *teacher):
    inputs = corrupt_fn(batch, jax.random.fold_in(key, state.step), *teacher)
    loss, grads = accumulated(loss_fn, state.params, inputs, accumulate, unroll)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = train_state.update_ema(
      state.ema_params, params, state.step, ema_decay
    )
    new_state = TrainState(state.step + 1, params, average, opt_state)
    return new_state, {'loss': loss, 'grad_norm': optax.global_norm(grads)}

  def steps(state, batches, key, *teacher):
    one = lambda state, batch: step(state, batch, key, *teacher)
    return jax.lax.scan(one, state, batches, unroll=unroll)

  copied = devices.copied_on(mesh)
  placement = state_shardings or copied
  stacked = steps_per_call > 1
  split, teacher = devices.split_on(mesh, stacked), [copied] * takes_teacher
  return jax.jit(
    steps if stacked else step,
    in_shardings=(placement, split, copied, *teacher),
    out_shardings=(placement, copied),
    donate_argnums=0,
    compiler_options=devices.compiler_options(mesh),
  )


def make_loss(
  settings: ConfigDict,
  parts: build.Experiment,
  num_steps: int | None = None,
  target_fn: Callable[..., jax.Array] | None = None,
) -> tuple[Callable[..., Inputs], Callable[..., jax.Array]]:
  """Returns (corrupt_fn, loss_fn) for a config's `diffusion` section.

  Args:
    settings: the section.
    parts: of the run.
    num_steps, target_fn: of a distillation, see make_corrupt_fn, with_target.
      Then no photo is dropped, as its guidance is part of the target.
  """
  corrupt_fn = make_corrupt_fn(
    parts.schedule,
    parts.codec,
    0.0 if target_fn else settings.cond_drop_rate,
    settings.size_power,
    settings.self_conditioning,
    settings.prompt_rate,
    num_steps,
  )
  if target_fn:
    corrupt_fn = with_target(corrupt_fn, target_fn)
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
  parts: build.Experiment,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  abstract: TrainState,
  target_fn: Callable[..., jax.Array] | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Compiles the training step that a config describes, see make_train_step.

  Args:
    config: of the run.
    parts: of the run.
    optimizer: as from train_state.make_optimizer.
    mesh: devices.
    abstract: the state, see build.make_state.
    target_fn: of a distillation, see distill.py; the step then takes the
      teacher's parameters as well.
  """
  num_steps = config.sample.num_steps if target_fn else None
  return make_train_step(
    *make_loss(config.diffusion, parts, num_steps, target_fn),
    optimizer,
    config.train.ema_decay,
    mesh,
    devices.shardings(abstract),
    config.train.accumulate,
    config.train.steps_per_call,
    takes_teacher=target_fn is not None,
  )
