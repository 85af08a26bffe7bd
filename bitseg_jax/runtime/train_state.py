"""The state of a training run, its optimizer and its parameter average."""

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
  """Everything that a training step reads and writes.

  Attributes:
    step: int32 [], number of steps taken.
    params: parameters of the network, pytree of float32 arrays.
    ema_params: exponential moving average of params, like params.
    opt_state: state of the optimizer.
  """

  step: jax.Array
  params: optax.Params
  ema_params: optax.Params
  opt_state: optax.OptState


def learning_rate_schedule(
  peak: float, num_steps: int, warmup_steps: int, decay_steps: int
) -> optax.Schedule:
  """Builds a run's learning rate: linear warm-up, constant, cosine decay to 0.

  Args:
    peak: the constant learning rate.
    num_steps: number of steps of the whole run.
    warmup_steps: number of first steps, during which the rate rises from 0.
    decay_steps: number of last steps, during which the rate falls to 0.

  Returns:
    A function from step to learning rate.
  """
  return optax.join_schedules(
    [
      optax.linear_schedule(0.0, peak, max(warmup_steps, 1)),
      optax.constant_schedule(peak),
      optax.cosine_decay_schedule(peak, max(decay_steps, 1)),
    ],
    [warmup_steps, num_steps - decay_steps],
  )


def make_optimizer(
  learning_rate: optax.ScalarOrSchedule,
  beta1: float = 0.9,
  beta2: float = 0.999,
  weight_decay: float = 0.0,
  grad_clip: float = 1.0,
) -> optax.GradientTransformation:
  """Builds a run's optimizer: AdamW, with the global gradient norm clipped."""
  return optax.chain(
    optax.clip_by_global_norm(grad_clip),
    optax.adamw(learning_rate, b1=beta1, b2=beta2, weight_decay=weight_decay),
  )


def create_state(
  params: optax.Params, optimizer: optax.GradientTransformation
) -> TrainState:
  """Returns a run's state of step 0, whose average equals the parameters."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    # A copy, because a training step cannot donate the same buffer twice.
    ema_params=jax.tree.map(jnp.copy, params),
    opt_state=optimizer.init(params),
  )


def update_ema(
  ema_params: optax.Params,
  params: optax.Params,
  step: jax.Array,
  decay: float,
) -> optax.Params:
  """Updates the parameter average in a run's state after a training step.

  The decay is at most (1 + step) / (10 + step), so that the average of a short
  run is not dominated by the initial parameters.

  Args:
    ema_params: the average so far, pytree of float32 arrays.
    params: parameters after the step, like ema_params.
    step: int32 [], number of steps taken before this one.
    decay: final decay, in [0, 1).

  Returns:
    The new average, like ema_params.
  """
  decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return optax.incremental_update(params, ema_params, 1 - decay)
