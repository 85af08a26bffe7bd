"""What training changes at every step, and the optimizer that changes it."""

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
  """Everything a step reads and writes.

  Attributes:
    step: int32 [], steps done.
    params: parameters, float32.
    ema_params: their exponential moving average.
    opt_state: optimizer state.
  """

  step: jax.Array
  params: optax.Params
  ema_params: optax.Params
  opt_state: optax.OptState


def learning_rate_schedule(
  peak: float, num_steps: int, warmup_steps: int, decay_steps: int
) -> optax.Schedule:
  """Linear warm-up, constant, cosine to 0 over the last decay_steps.

  Args:
    peak: the constant learning rate.
    num_steps: steps of the whole run.
    warmup_steps: steps from 0 to peak.
    decay_steps: steps from peak to 0 at the end.

  Returns:
    step -> learning rate.
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
  """AdamW behind a clip of the global gradient norm."""
  return optax.chain(
    optax.clip_by_global_norm(grad_clip),
    optax.adamw(learning_rate, b1=beta1, b2=beta2, weight_decay=weight_decay),
  )


def create_state(
  params: optax.Params, optimizer: optax.GradientTransformation
) -> TrainState:
  """State of step 0; the average starts at the parameters."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    # A copy: state is donated, and one buffer cannot be donated twice.
    ema_params=jax.tree.map(jnp.copy, params),
    opt_state=optimizer.init(params),
  )


def update_ema(
  ema_params: optax.Params,
  params: optax.Params,
  step: jax.Array,
  decay: float,
) -> optax.Params:
  """Moves the average towards params; early steps forget faster.

  With the decay held at (1 + step) / (10 + step) until it reaches its value,
  a short run is not judged on its initialisation.

  Args:
    ema_params: the average so far.
    params: parameters after the step.
    step: steps done before this one, int32 [].
    decay: final decay, in [0, 1).

  Returns:
    The new average.
  """
  decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return optax.incremental_update(params, ema_params, 1 - decay)
