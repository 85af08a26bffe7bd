"""Training: one jitted, sharded step, and the loop around it."""

import logging
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from bitseg_jax import (
  checkpoint,
  diffusion,
  evaluate,
  experiment,
  sharding,
  train_state,
)
from bitseg_jax.codec import Codec
from bitseg_jax.data import pipeline, transforms
from bitseg_jax.schedule import Schedule, loss_weight
from bitseg_jax.train_state import TrainState
from bitseg_jax.writers import MetricWriter

Metrics = dict[str, jax.Array]


class NonFiniteLossError(RuntimeError):
  """The loss or its gradient became inf or nan."""


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


def train(config: ConfigDict, workdir: str | pathlib.Path) -> None:
  """Trains to config.train.num_steps, from where the workdir stands.

  Starts from, in this order: the newest whole checkpoint of the workdir; the
  EMA parameters of another workdir, config.init_from; random parameters.
  SIGTERM or Ctrl-C saves a checkpoint and ends the process.

  Raises:
    ValueError, OSError: settings or data that cannot work, before compiling.
    NonFiniteLossError: names the step and the last good checkpoint.
  """
  workdir = pathlib.Path(workdir)
  parts = experiment.build(config)
  source = experiment.open_source(config, 'train')
  eval_source = experiment.open_source(config, 'eval')
  mesh = sharding.make_mesh()
  batches = iter(
    pipeline.training_batches(
      source,
      experiment.training_example(config, parts.palette),
      config.train.batch_size,
      config.seed,
      config.data.num_threads,
      config.data.num_workers,
      jax.process_index(),
      jax.process_count(),
    )
  )
  learning_rate = train_state.learning_rate_schedule(
    config.train.learning_rate,
    config.train.num_steps,
    config.train.warmup_steps,
    config.train.decay_steps,
  )
  optimizer = train_state.make_optimizer(
    learning_rate,
    config.train.beta1,
    config.train.beta2,
    config.train.weight_decay,
    config.train.grad_clip,
  )
  loss_fn = make_loss_fn(
    parts.denoise,
    parts.schedule,
    parts.codec,
    config.diffusion.loss_weight,
    config.diffusion.loss_bias,
    config.diffusion.decoupled,
    config.diffusion.cond_drop_rate,
  )
  with checkpoint.open_manager(
    workdir, config.train.keep_checkpoints
  ) as manager:
    state = start(config, workdir, parts, optimizer, manager, batches, mesh)
    writer = MetricWriter(workdir, enabled=jax.process_index() == 0)
    writer.write_hparams(config.to_dict())
    show = make_show_fn(config, workdir, parts, eval_source, mesh, writer)
    train_step = make_train_step(
      loss_fn, optimizer, config.train.ema_decay, mesh
    )
    save = lambda step, state: checkpoint.save(
      manager, step, state, batches, _plain(config)
    )
    try:
      loop(
        config.train,
        config.seed,
        state,
        train_step,
        batches,
        mesh,
        writer=writer,
        learning_rate=learning_rate,
        save=save,
        show=show,
        last_saved=lambda: manager.latest_step(),
        stop_asked=stop_signal(manager),
      )
    finally:
      writer.close()


def start(config, workdir, parts, optimizer, manager, batches, mesh):
  """State to begin with, see `train` for the order of what is tried."""
  init = lambda key: train_state.create_state(parts.init_params(key), optimizer)
  copied = sharding.copied_on(mesh)
  key = jax.random.key(config.seed)
  abstract = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=copied),
    jax.eval_shape(init, key),
  )
  if manager.all_steps():
    _check_same_model(config, checkpoint.read_config(workdir), workdir)
  state = checkpoint.restore_newest(manager, abstract, batches)
  if state is not None:
    logging.info('resuming %s at step %d', workdir, int(state.step))
    return state
  if jax.process_index() == 0:
    overview = parameter_overview.get_parameter_overview(
      abstract.params, include_stats=False
    )
    (workdir / 'parameters.txt').write_text(overview + '\n')
    logging.info('%s', overview.splitlines()[-1])
  state = jax.jit(init, out_shardings=copied)(key)
  if config.init_from:
    step, params = checkpoint.read_params(config.init_from, abstract.params)
    logging.info('starting from %s, step %d', config.init_from, step)
    state = state.replace(
      params=params, ema_params=jax.tree.map(jnp.copy, params)
    )
  return state


def _check_same_model(config, saved, workdir):
  """A workdir holds one run: its weights and its input position fit it."""
  ours = _plain(config)
  for section in ('model', 'codes', 'data'):
    for name, value in ours[section].items():
      was = saved[section].get(name)
      if was != value:
        raise ValueError(
          f'{workdir} holds a run with config.{section}.{name} = {was}, not '
          f'{value}; use another --workdir, or the same setting to resume'
        )
  if saved['train']['batch_size'] != ours['train']['batch_size']:
    raise ValueError(
      f'{workdir} holds a run with config.train.batch_size = '
      f'{saved["train"]["batch_size"]}, not {ours["train"]["batch_size"]}; '
      'its input position would not fit, use another --workdir'
    )


def _plain(config):
  """The config as plain JSON values: tuples become lists."""
  plain = lambda v: (
    {k: plain(x) for k, x in v.items()}
    if isinstance(v, dict)
    else list(v)
    if isinstance(v, tuple)
    else v
  )
  return plain(config.to_dict())


def loop(
  settings: ConfigDict,
  seed: int,
  state: TrainState,
  train_step: Callable[..., tuple[TrainState, Metrics]],
  batches: Any,
  mesh: Mesh,
  writer: MetricWriter,
  learning_rate: optax.Schedule,
  save: Callable[[int, TrainState], None],
  show: Callable[[int, TrainState], None],
  last_saved: Callable[[], int | None],
  stop_asked: Callable[[int], bool],
) -> TrainState:
  """Steps until settings.num_steps; logs, shows samples, saves on the way."""
  first = int(state.step)
  key = jax.device_put(
    jax.random.fold_in(jax.random.key(seed), 1), sharding.copied_on(mesh)
  )
  progress = tqdm(
    total=settings.num_steps * settings.batch_size,
    initial=first * settings.batch_size,
    desc='train',
    unit='img',
    disable=jax.process_index() > 0,
    mininterval=0.5 if sys.stderr.isatty() else 20,
  )
  pending, began = [], time.perf_counter()
  for step in range(first + 1, settings.num_steps + 1):
    state, metrics = train_step(
      state, sharding.put_batch(next(batches), mesh), key
    )
    pending.append(metrics)
    stop = stop_asked(step)
    last = stop or step == settings.num_steps
    saves = last or step % settings.checkpoint_every == 0
    shows = step == settings.num_steps or step % settings.eval_every == 0
    if saves or shows or step % settings.log_every == 0:
      scalars = _collect(pending, step, last_saved)
      seconds = time.perf_counter() - began
      scalars['learning_rate'] = float(learning_rate(step - 1))
      scalars['images_per_second'] = (
        len(pending) * settings.batch_size / seconds
      )
      writer.write_scalars(step, scalars)
      writer.flush()
      progress.set_postfix(step=step, loss=f'{scalars["loss"]:.4f}')
      pending = []
    progress.update(settings.batch_size)
    if saves:
      save(step, state)
    if shows and not stop:
      show(step, state)
    if not pending:
      began = time.perf_counter()
    if stop:
      logging.warning('stopped at step %d; the same command goes on', step)
      break
  progress.close()
  return state


def _collect(pending, step, last_saved):
  """Means of the steps since the last call; raises if one is not finite.

  Read in one go, so that the device is never kept waiting for the host, yet
  before anything is saved.
  """
  values = jax.device_get(pending)
  for i, metrics in enumerate(values):
    for name, value in metrics.items():
      if not np.isfinite(value):
        saved = last_saved()
        raise NonFiniteLossError(
          f'{name} is {value} at step {step - len(values) + 1 + i}; '
          + (
            f'the last good checkpoint is step {saved}'
            if saved
            else 'there is no checkpoint yet'
          )
          + '; lower the learning rate, or use float32'
        )
  return {
    name: float(np.mean([metrics[name] for metrics in values]))
    for name in values[0]
  }


def make_show_fn(config, workdir, parts, source, mesh, writer):
  """Returns show(step, state): scores and pictures of the EMA weights."""
  if not config.eval.during_training:
    return lambda step, state: None
  sample_fn = evaluate.make_sample_fn(parts, config.sample, mesh)

  def show(step, state):
    scores = evaluate.score_samples(
      sample_fn,
      state.ema_params,
      parts.codec.decode,
      source,
      parts.image_size,
      mesh,
      config.eval.batch_size,
      num_images=config.eval.during_training,
      num_shown=config.eval.gallery_images,
      seed=config.seed,
      description=f'eval at step {step}',
    )
    summary = evaluate.summarize(scores)
    tqdm.write(
      f'step {step}: '
      + ', '.join(f'{name} {value:.4f}' for name, value in summary.items())
    )
    writer.write_scalars(step, {f'eval_{k}': v for k, v in summary.items()})
    if jax.process_index() == 0 and scores.samples:
      path = workdir / 'samples' / f'{step:07d}.png'
      evaluate.draw_gallery(source, scores, parts.image_size, path)
      writer.write_images(step, {'samples': np.asarray(Image.open(path))})
    writer.flush()

  return show


def stop_signal(manager) -> Callable[[int], bool]:
  """Returns stop_asked(step): whether SIGTERM or Ctrl-C has come.

  With several processes all must stop at the same step: orbax agrees on it.
  """
  if jax.process_count() > 1:
    return manager.reached_preemption
  asked = []

  def note(number, frame):
    asked.append(number)
    for name in (signal.SIGTERM, signal.SIGINT):
      signal.signal(name, signal.SIG_DFL)  # a second one ends at once

  for name in (signal.SIGTERM, signal.SIGINT):
    signal.signal(name, note)
  return lambda step: bool(asked)
