"""One jitted, sharded step of training: loss, gradient, update, average."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bitseg_jax import diffusion, sharding, train_state
from bitseg_jax.codec import Codec
from bitseg_jax.data import transforms
from bitseg_jax.schedule import Schedule, loss_weight
from bitseg_jax.train_state import TrainState

Metrics = dict[str, jax.Array]


def make_loss_fn(
  denoise: Callable[..., jax.Array],
  schedule: Schedule,
  codec: Codec,
  weight_kind: str = 'sigmoid',
  weight_bias: float = -4.0,
  decoupled: bool = True,
  cond_drop_rate: float = 0.05,
) -> Callable[..., jax.Array]:
  """Returns loss_fn(params, batch, key) -> float32 [] (sec. 3.3).

  The batch holds image uint8 [B, S, S, 3] and codes int [B, S, S]; -1 in
  codes (padding, unlabelled) counts nowhere.
  """

  def loss_fn(params, batch, key):
    key_t, key_eps, key_drop = jax.random.split(key, 3)
    codes = batch['codes'].astype(jnp.int32)
    x = codec.encode(codes)
    image = transforms.normalize_image(batch['image'])
    # Guidance needs the model without image too: a few see zeros instead.
    keep = jax.random.bernoulli(key_drop, 1 - cond_drop_rate, (len(x),))
    image = image * keep[:, None, None, None]
    t = diffusion.stratified_times(key_t, len(x))
    eps = jax.random.normal(key_eps, x.shape)
    at_t = t[:, None, None, None]
    z_t = diffusion.q_sample(x, eps, schedule.alpha(at_t), schedule.sigma(at_t))
    x_hat = denoise(params, z_t, image, t)
    weight = loss_weight(schedule, t, weight_kind, weight_bias, decoupled)
    return jnp.mean(
      diffusion.denoising_loss(x_hat, x, weight, valid=codes >= 0)
    )

  return loss_fn


def make_train_step(
  loss_fn: Callable[..., jax.Array],
  optimizer: optax.GradientTransformation,
  ema_decay: float,
  mesh: Mesh,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Compiles one step of training over a mesh.

  Args:
    loss_fn: (params, batch, key) -> loss.
    optimizer: as from train_state.make_optimizer.
    ema_decay: final decay of the parameter average.
    mesh: devices.

  Returns:
    step(state, batch, key) -> (state, {'loss', 'grad_norm'}); key is that of
    the run, the step number is folded in. The state given is donated.
  """

  def step(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    loss, grads = jax.value_and_grad(loss_fn)(state.params, batch, key)
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

  copied = sharding.copied_on(mesh)
  return jax.jit(
    step,
    in_shardings=(copied, sharding.split_on(mesh), copied),
    out_shardings=copied,
    donate_argnums=0,
  )
