"""The state of a training run, its optimizer and its parameter average."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
import optax.contrib

OPTIMIZERS = ('adamw', 'muon')


@flax.struct.dataclass
class TrainState:
  """Everything that a training step reads and writes."""

  step: jax.Array  # int32 [], steps taken
  params: optax.Params  # pytree of float32 arrays
  ema_params: optax.Params  # their exponential moving average
  opt_state: optax.OptState


def learning_rate_schedule(
  peak: float, num_steps: int, warmup_steps: int, decay_steps: int
) -> optax.Schedule:
  """Builds a run's learning rate, a function of the step.

  It rises linearly to `peak` in the first warmup_steps and falls to 0 by a
  cosine in the last decay_steps, which share a run that is too short for both.
  """
  both = warmup_steps + decay_steps
  if both > num_steps:
    warmup_steps = warmup_steps * num_steps // both
    decay_steps = num_steps - warmup_steps
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
  name: str = 'adamw',
  encoder_rate: float | None = None,
) -> optax.GradientTransformation:
  """Builds a run's optimizer, with the global gradient norm clipped.

  Args:
    learning_rate: about the most by which a step changes a weight. With muon it
      is the root mean square over the weights of a kernel.
    beta1, beta2, weight_decay, grad_clip: see configs/base.py.
    name: one of OPTIMIZERS. muon is for kernels, as matrices from all that goes
      into an output to the outputs; the others have AdamW with Nesterov's
      momentum.
    encoder_rate: learning rate of a pretrained encoder's weights, as a share of
      the others'; 0 leaves them as they are. None: there is no encoder.

  Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019;
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks",
    2024, with the steps of Liu et al., "Muon is scalable for LLM training",
    2025, but of size 1 instead of 0.2.
  """
  if name == 'muon':
    rule = optax.contrib.muon(
      learning_rate,
      weight_decay=weight_decay,
      adam_b1=beta1,
      adam_b2=beta2,
      adam_weight_decay=weight_decay,
      muon_weight_dimension_numbers=_as_matrices,
      consistent_rms=1.0,
    )
  else:
    rule = optax.adamw(
      learning_rate, b1=beta1, b2=beta2, weight_decay=weight_decay
    )
  if encoder_rate is not None:
    adam = optax.adam(learning_rate, beta1, beta2)  # some have no gradient
    slower = optax.chain(adam, optax.scale(encoder_rate))
    trunk = slower if encoder_rate else optax.set_to_zero()
    rule = optax.partition({'all': rule, 'trunk': trunk}, _part_of_each)
  return optax.chain(optax.clip_by_global_norm(grad_clip), rule)


def _part_of_each(params):
  """Labels each parameter 'trunk', of a pretrained encoder, or 'all'."""
  keys = lambda path: [getattr(key, 'key', None) for key in path[:2]]
  part = lambda path, _: 'trunk' if keys(path) == ['eyes', 'trunk'] else 'all'
  return jax.tree_util.tree_map_with_path(part, params)


def _as_matrices(params):
  """Which axes of each kernel are inputs and outputs; None for the others."""
  axes = lambda p: optax.contrib.MuonDimensionNumbers(
    reduction_axis=tuple(range(p.ndim - 1)), output_axis=p.ndim - 1
  )
  return jax.tree.map(lambda p: axes(p) if p.ndim > 1 else None, params)


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
  ema_params: optax.Params, params: optax.Params, step: jax.Array, decay: float
) -> optax.Params:
  """Updates the parameter average after the training step number `step`.

  The decay is at most (1 + step) / (10 + step), so that the average of a short
  run is not dominated by the initial parameters.
  """
  decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  # So written, what is frozen stays as it is to the last bit.
  move = lambda mean, new: mean + (1 - decay) * (new - mean)
  return jax.tree.map(move, ema_params, params)
