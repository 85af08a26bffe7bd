"""Trains a model: starts or resumes a run and loops over its steps."""

import contextlib
import logging
import math
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from bitseg_jax.evaluation import draw_samples, evaluate
from bitseg_jax.runs import (
  build,
  checkpoint,
  devices,
  log,
  programs,
  schema,
  weights,
)
from bitseg_jax.training import distill, stopping
from bitseg_jax.training import step as train_step


class NonFiniteLossError(ArithmeticError):
  """A loss, a gradient or a parameter became inf or nan."""

  def __init__(self, what: str, last_saved: int | None):
    good = f'the last good checkpoint is step {last_saved}'
    good = good if last_saved else 'there is no checkpoint yet'
    super().__init__(f'{what}; {good}; lower the learning rate, or use float32')


@devices.jax_defaults()
def train(config: ConfigDict, workdir: str | pathlib.Path) -> bool:
  """Trains until config.train.num_steps, resuming what the workdir holds.

  It starts from the first of these that exists: the newest whole checkpoint in
  the workdir; config.init_from; config.distill.teacher; random parameters, with
  an encoder's from ImageNet. SIGTERM or Ctrl-C saves a checkpoint and stops it.

  Returns:
    Whether the last step was reached.

  Raises:
    ValueError, OSError, ImportError: before compiling, if settings or data
      cannot work.
    NonFiniteLossError: names the step and the last good checkpoint.
  """
  workdir, settings = pathlib.Path(workdir), config.train
  parts, recipe = build.build(config), build.make_recipe(config)
  devices.check_devices(
    'train.batch_size', settings.batch_size, settings.accumulate
  )
  devices.check_devices('eval.batch_size', config.eval.batch_size)
  sources = build.open_sources(config, 'train')
  eval_sources = build.open_sources(config, 'eval')
  teacher, target_fn = distill.load_teacher(config)
  mesh = devices.make_mesh(settings.fsdp)
  learning_rate, optimizer = build.make_optimizer(config)
  init, abstract = build.make_state(parts, optimizer, mesh)
  step_fn = train_step.make_step(
    parts, recipe, optimizer, mesh, devices.shardings(abstract), target_fn
  )
  with (
    stopping.stop_signal(lambda n: manager.orbax.reached_preemption(n)) as told,
    contextlib.nullcontext() if jax.process_index() else log.hold(workdir),
    contextlib.ExitStack() as readers,  # slow to end, so after all is saved
    checkpoint.open_manager(workdir, settings.keep_checkpoints) as manager,
    contextlib.closing(
      log.MetricWriter(workdir, enabled=jax.process_index() == 0)
    ) as writer,
  ):
    state = first_state(config, workdir, init, abstract, manager)
    first = int(state.step)
    if first > settings.num_steps:
      raise ValueError(
        f'the run has taken {first} steps already, over config.train.num_steps '
        f'= {settings.num_steps}; use another --workdir, or more steps'
      )
    # A step takes a batch, so the steps taken are the input's position.
    batches = build.training_batches(
      config, list(sources.values()), parts.palette, mesh, first
    )
    batches = readers.enter_context(contextlib.closing(iter(batches)))
    score = make_score_fn(config, workdir, parts, eval_sources, mesh, writer)
    make_key = lambda: jax.random.fold_in(jax.random.key(config.seed), 1)
    key = jax.jit(make_key, out_shardings=devices.copied_on(mesh))()
    size = settings.batch_size
    progress = log.progress_bar(
      settings.num_steps * size, 'train', 'img', initial=first * size
    )
    began, saved_at = time.perf_counter(), time.monotonic()
    pending, stop = [], False
    for step in range(first + 1, settings.num_steps + 1):
      batch = devices.put_batch(next(batches), mesh)
      if step == first + 1:
        step_fn = programs.compile_ahead(step_fn, state, batch, key, *teacher)
        progress.unpause()  # compiling counts neither for the time left
        began = time.perf_counter()  # nor for the images per second
      state, metrics = step_fn(state, batch, key, *teacher)
      pending.append(metrics)
      # At most three steps are launched ahead, so that a stop is heard soon.
      jax.block_until_ready(pending[-3:-2])
      progress.update(size)
      last = step == settings.num_steps
      stop = not last and (manager.check() or told(step))
      logs = step % settings.log_every == 0
      saves = stop or last or step % settings.checkpoint_every == 0
      saves = saves or (
        logs and stopping.is_due(saved_at, settings.checkpoint_minutes)
      )
      scores = last or step % settings.eval_every == 0
      if logs or saves or scores:  # only what is known to be finite is saved
        scalars = _collect(pending, step, manager.orbax.latest_step())
        images, now = len(pending) * size, time.perf_counter()
        scalars['learning_rate'] = float(learning_rate(step - 1))
        scalars['images_per_second'] = images / (now - began)
        writer.write_scalars(step, scalars)
        writer.flush()
        progress.set_postfix(step=step, loss=f'{scalars["loss"]:.4f}')
        pending, began = [], now
      if saves:
        _check_finite(state, step, manager.orbax.latest_step())
        manager.save(step, state, config.to_dict())
        saved_at = time.monotonic()
      if scores and not stop:
        manager.finish()  # scoring takes minutes, in which a kill may come
        score(step, state)
      if saves or scores:
        began = time.perf_counter()
      if stop:
        break
    progress.close()
    if stop:
      logging.warning(
        'stopped at step %d; run the same command to resume', step
      )
  return int(state.step) == settings.num_steps


def first_state(config, workdir, init, abstract, manager):
  """Returns the training state to begin with, chosen as `train` describes."""
  if manager.orbax.all_steps():
    schema.check_same_run(config, checkpoint.read_config(workdir), workdir)
  state = checkpoint.restore_newest(manager, abstract)
  if state is not None:
    logging.info('resuming %s at step %d', workdir, int(state.step))
    return state
  if not jax.process_index():
    table = parameter_overview.get_parameter_overview(
      abstract.params, include_stats=False
    )
    with log.whole_file(workdir / 'parameters.txt') as file:
      file.write(f'{table}\n')
  state = init(jax.random.key(config.seed))
  if first := config.init_from or config.distill.teacher:
    logging.info('starting from %s', first)
    params = weights.read(first, expected=abstract.params).params
  else:
    params = build.with_imagenet(state.params, config.model)
  return state.replace(params=params, ema_params=jax.tree.map(jnp.copy, params))


_all_finite = jax.jit(lambda tree: jnp.isfinite(optax.global_norm(tree)))


def _check_finite(state, step, last_saved):
  # The loss of a step comes before its update, and says nothing of it.
  if not _all_finite((state.params, state.ema_params)):
    what = f'parameters are not finite after step {step}'
    raise NonFiniteLossError(what, last_saved)


def _collect(pending, step, last_saved):
  """Averages the metrics of the steps since the last call, if all are finite.

  They are read at once, so that the device seldom waits for the host.
  """
  pending = jax.device_get(pending)
  for k, metrics in enumerate(pending, step - len(pending) + 1):
    for name, value in metrics.items():
      if not np.isfinite(value):
        raise NonFiniteLossError(f'{name} is {value} at step {k}', last_saved)
  return {n: float(np.mean([m[n] for m in pending])) for n in pending[0]}


def make_score_fn(config, workdir, parts, sources, mesh, writer):
  """Returns score(step, state), which logs scores and images of EMA weights."""
  if not config.eval.during_training:
    return lambda step, state: None
  functions = draw_samples.make_functions(
    parts, build.SamplerOptions(**config.sample), mesh
  )

  def score(step, state):
    for dataset, source in sources.items():
      suffix = f'_{dataset}' if len(sources) > 1 else ''
      options = evaluate.Options(
        config.eval.batch_size,
        num_images=config.eval.during_training,
        num_shown=config.eval.gallery_images,
        seed=config.seed,
        description=f'eval{suffix} at step {step}',
      )
      scores = evaluate.score_samples(
        functions, state.ema_params, parts, source, mesh, options
      )
      found = evaluate.summarize(scores).items()
      summary = {f'eval{suffix}_{name}': value for name, value in found}
      summary = {n: math.nan if v is None else v for n, v in summary.items()}
      said = [f'{name} {value:.4f}' for name, value in summary.items()]
      tqdm.write(f'step {step}: {", ".join(said)}')
      writer.write_scalars(step, summary)
      if jax.process_index() == 0 and scores.samples:
        path = workdir / 'samples' / f'{step:07d}{suffix}.png'
        evaluate.draw_gallery(source, scores, parts, path)
        image = np.asarray(Image.open(path))
        writer.write_images(step, {f'samples{suffix}': image})
    writer.flush()

  return score
