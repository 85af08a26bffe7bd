"""Trains a model: starts or resumes a run and loops over its steps."""

import contextlib
import logging
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
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
  schema,
  stopping,
  weights,
)
from bitseg_jax.runs.log import MetricWriter, progress_bar, whole_file
from bitseg_jax.training import distill
from bitseg_jax.training import step as train_step


class NonFiniteLossError(ArithmeticError):
  """The training loss or its gradient became inf or nan."""


@devices.jax_defaults()
def train(config: ConfigDict, workdir: str | pathlib.Path) -> bool:
  """Trains until config.train.num_steps, resuming what the workdir holds.

  Training starts from the first of these that exists: the newest whole
  checkpoint in the workdir; config.init_from, a pretrained model or another
  run's EMA parameters; config.distill.teacher, likewise; random parameters,
  those of a pretrained encoder from ImageNet. SIGTERM or Ctrl-C saves a
  checkpoint and stops it.

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
  size = settings.batch_size
  with (
    stopping.stop_signal(lambda n: manager.orbax.reached_preemption(n)) as told,
    contextlib.nullcontext() if jax.process_index() else log.hold(workdir),
    contextlib.ExitStack() as readers,  # slow to end, so after all is saved
    checkpoint.open_manager(workdir, settings.keep_checkpoints) as manager,
    contextlib.closing(
      MetricWriter(workdir, enabled=jax.process_index() == 0)
    ) as writer,
  ):
    state = start(config, workdir, init, abstract, manager)
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
    show = make_show_fn(config, workdir, parts, eval_sources, mesh, writer)
    make_key = lambda: jax.random.fold_in(jax.random.key(config.seed), 1)
    key = jax.jit(make_key, out_shardings=devices.copied_on(mesh))()
    progress = progress_bar(
      settings.num_steps * size, 'train', 'img', initial=first * size
    )
    pending, began, saved_at = [], time.perf_counter(), time.monotonic()

    def report(step, metrics):
      """Writes the means of the steps since the last report; all are finite."""
      scalars = _collect(metrics, step, manager.orbax.latest_step)
      scalars['learning_rate'] = float(learning_rate(step - 1))
      nonlocal began
      images, now = len(metrics) * size, time.perf_counter()
      scalars['images_per_second'], began = images / (now - began), now
      writer.write_scalars(step, scalars)
      writer.flush()
      progress.set_postfix(step=step, loss=f'{scalars["loss"]:.4f}')

    due = None
    for step in range(first + 1, settings.num_steps + 1):
      batch = devices.put_batch(next(batches), mesh)
      if step == first + 1:
        step_fn = devices.compile_ahead(step_fn, state, batch, key, *teacher)
        progress.unpause()  # compiling counts neither for the time left
        began = time.perf_counter()  # nor for the images per second
      state, metrics = step_fn(state, batch, key, *teacher)
      pending.append(metrics)
      if due:  # read only now, when the device has the next step to do
        report(*due)
        due = None
      last = step == settings.num_steps
      stop = not last and (manager.check() or told(step))
      logs = step % settings.log_every == 0
      saves = stop or last or step % settings.checkpoint_every == 0
      saves = saves or (
        logs and stopping.is_due(saved_at, settings.checkpoint_minutes)
      )
      shows = last or step % settings.eval_every == 0
      if saves or shows or logs:
        due, pending = (step, pending), []
      progress.update(size)
      if saves or shows:  # only what is known to be finite is saved
        report(*due)
        due = None
      if saves:
        _check_finite(state, step, manager.orbax.latest_step())
        manager.save(step, state, config.to_dict())
        saved_at = time.monotonic()
      if shows and not stop:
        manager.finish()  # scoring takes minutes, in which a kill may come
        show(step, state)
      if saves or shows:
        began = time.perf_counter()
      if stop:
        progress.close()  # else the bar would be drawn after the line
        logging.warning(
          'stopped at step %d; run the same command to resume', step
        )
        break
    progress.close()
  return int(state.step) == settings.num_steps


def start(config, workdir, init, abstract, manager):
  """Returns the training state to begin with, chosen as `train` describes."""
  if manager.orbax.all_steps():
    schema.check_same_run(config, checkpoint.read_config(workdir), workdir)
  state = checkpoint.restore_newest(manager, abstract)
  if state is not None:
    logging.info('resuming %s at step %d', workdir, int(state.step))
    return state
  if jax.process_index() == 0:
    overview = parameter_overview.get_parameter_overview(
      abstract.params, include_stats=False
    )
    with whole_file(workdir / 'parameters.txt') as file:
      file.write(overview + '\n')
    logging.info('%s', overview.splitlines()[-1])
  state = init(jax.random.key(config.seed))
  if first := config.init_from or config.distill.teacher:
    logging.info('starting from %s', first)
    params = weights.read(first, expected=abstract.params).params
  else:
    params = build.with_imagenet(state.params, config.model)
  return state.replace(params=params, ema_params=jax.tree.map(jnp.copy, params))


def _check_finite(state, step, last_saved):
  """Raises NonFiniteLossError for a parameter or an average that is not finite.

  The loss of a step does not show it: what is saved comes after its update.
  """
  if not _all_finite((state.params, state.ema_params)):
    raise NonFiniteLossError(
      f'parameters are not finite after step {step}; the last good checkpoint '
      f'is step {last_saved}; lower the learning rate, or use float32'
    )


@jax.jit
def _all_finite(tree):
  return jnp.all(
    jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)])
  )


def _collect(pending, step, last_saved):
  """Averages the metrics of the steps since the last call.

  All are read at once, so that the device never waits for the host, but before
  anything is saved, so that no checkpoint holds a state that is not finite.

  Raises:
    NonFiniteLossError: if a value is inf or nan.
  """
  each = jax.tree.map(
    lambda *values: np.hstack(values), *jax.device_get(pending)
  )
  rows = np.stack(list(each.values()), axis=-1)  # [steps, metrics]
  bad = np.argwhere(~np.isfinite(rows))
  if len(bad):
    i, which = bad[0]
    saved = last_saved()
    raise NonFiniteLossError(
      f'{list(each)[which]} is {rows[i, which]} at step '
      f'{step - len(rows) + 1 + i}; '
      + (
        f'the last good checkpoint is step {saved}'
        if saved
        else 'there is no checkpoint yet'
      )
      + '; lower the learning rate, or use float32'
    )
  return {name: float(np.mean(values)) for name, values in each.items()}


def make_show_fn(config, workdir, parts, sources, mesh, writer):
  """Returns show(step, state), which logs scores and images of EMA weights."""
  if not config.eval.during_training:
    return lambda step, state: None
  functions = draw_samples.make_functions(
    parts, build.sampler_options(config.sample), mesh
  )

  def show(step, state):
    for dataset, source in sources.items():
      suffix = f'_{dataset}' if len(sources) > 1 else ''
      scores = evaluate.score_samples(
        functions,
        state.ema_params,
        parts,
        source,
        mesh,
        evaluate.Options(
          config.eval.batch_size,
          num_images=config.eval.during_training,
          num_shown=config.eval.gallery_images,
          seed=config.seed,
          description=f'eval{suffix} at step {step}',
        ),
      )
      summary = {
        f'eval{suffix}_{name}': value
        for name, value in evaluate.summarize(scores).items()
      }
      tqdm.write(
        f'step {step}: '
        + ', '.join(f'{name} {value:.4f}' for name, value in summary.items())
      )
      writer.write_scalars(step, summary)
      if jax.process_index() == 0 and scores.samples:
        path = workdir / 'samples' / f'{step:07d}{suffix}.png'
        evaluate.draw_gallery(source, scores, parts, path)
        image = np.asarray(Image.open(path))
        writer.write_images(step, {f'samples{suffix}': image})
    writer.flush()

  return show
