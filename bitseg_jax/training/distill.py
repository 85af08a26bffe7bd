"""Distillation: a model learns to draw its teacher's samples in fewer steps.

The student learns along the deterministic path of DDIM, however its teacher is
sampled, so that what it predicts differs as the noise does. One DDIM step
of the student is to land where several of the teacher land; what the teacher's
guidance computes from two branches the student computes from one. Trained in
stages, each with the student before as its teacher, it halves the steps again
and again. How the student is sampled then, its config says, as for any model:
by default with ddpm, which adds new noise after each step but the last.

Source: Salimans and Ho, "Progressive distillation for fast sampling of
diffusion models", ICLR 2022; guidance: Meng et al., "On distillation of guided
diffusion models", CVPR 2023.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from bitseg_jax import sampler
from bitseg_jax.runs import build, weights
from bitseg_jax.schedule import Schedule

# What x_hat means and what the networks see, which both models must share.
_SHARED = {
  'codes': ('encoding', 'num_codes', 'palette', 'palette_seed'),
  'diffusion': ('schedule', 'input_scale', 'pred_type', 'tanh', 'prompt_rate'),
  'data': ('image_size',),
}


def make_target_fn(
  denoise: Callable[..., jax.Array],
  schedule: Schedule,
  num_steps: int,
  substeps: int,
  guidance_weight: float = 0.0,
  guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> Callable[..., jax.Array]:
  """Makes the function that computes what a step of the student must predict.

  Along DDIM's path z / sigma grows by x_hat times the increase of
  alpha / sigma. So the one x_hat that leads from t to s is the mean of the
  x_hats on the way, weighted by these increases.

  Args:
    denoise: the teacher's, see diffusion.make_denoiser.
    schedule: noise schedule of both.
    num_steps: N, steps of the student.
    substeps: steps of the teacher in one of the student.
    guidance_weight, guidance_interval: of the teacher, see sampler.guided.

  Returns:
    target_fn(params of the teacher, z_t [B, S, S, C], image [B, S, S, 3],
    t [B], valid bool [B, S, S]) -> x_hat float32 [B, S, S, C] in [-1, 1], 0
    where not valid.
  """

  def target_fn(params, z_t, image, t, valid):
    predict = sampler.guided(
      denoise, params, image, guidance_weight, guidance_interval
    )
    logsnr = lambda time: schedule.logsnr(time)[:, None, None, None]
    ratio = lambda time: jnp.exp(logsnr(time) / 2)  # alpha / sigma
    total = jnp.zeros_like(z_t)
    start, z = t, z_t
    for i in range(1, substeps + 1):
      # The last one ends at 0 exactly, where the student's last step does.
      s = jnp.maximum(start - i / (num_steps * substeps), 0.0)
      s = jnp.where(s < 1e-6, 0.0, s)
      x_hat = jnp.clip(predict(z, t), -1, 1) * valid[..., None]
      total += (ratio(s) - ratio(t)) * x_hat
      z, t = sampler.ddim_step(z, x_hat, logsnr(t), logsnr(s)), s
    return total / (ratio(t) - ratio(start))

  return target_fn


def load_teacher(
  config: ConfigDict, parts: build.Experiment
) -> tuple[tuple[Any, ...], Callable[..., jax.Array] | None]:
  """Reads the teacher that a config names.

  Args:
    config: of the student's run.
    parts: of the student's run.

  Returns:
    (what the training step takes, that is the teacher's parameters; target_fn,
    see make_target_fn), or ((), None) if the config names no teacher.

  Raises:
    ValueError: in one line, if student and teacher do not fit.
    OSError: there is no such teacher, or it cannot be read.
  """
  if not config.distill.teacher:
    return (), None
  _check_student(config)
  teacher = weights.read(config.distill.teacher)
  _check_shared(config, teacher.config)
  num_steps, theirs = config.sample.num_steps, teacher.config.sample
  steps = config.distill.teacher_steps or theirs.num_steps
  if teacher.config.distill.teacher and steps != theirs.num_steps:
    raise ValueError(
      f'config.distill.teacher_steps is {steps}, but the teacher is a student '
      f'itself, which learned to take {theirs.num_steps}'
    )
  if steps % num_steps:
    raise ValueError(
      f'the teacher takes {steps} steps, no multiple of '
      f'config.sample.num_steps = {num_steps}; choose another of these, or '
      'set config.distill.teacher_steps'
    )
  target_fn = make_target_fn(
    build.build(teacher.config).denoise,
    parts.schedule,
    num_steps,
    steps // num_steps,
    theirs.guidance_weight,
    tuple(theirs.guidance_interval),
  )
  return (teacher.params,), target_fn


def _check_student(config):
  """Checks what a student must be; the config of a run is checked already."""
  for name, wanted in (
    ('sample.guidance_weight', 0),
    ('sample.time_difference', 0),
    ('diffusion.self_conditioning', False),
    ('diffusion.loss', 'squared'),
  ):
    section, key = name.split('.')
    if config[section][key] != wanted:
      raise ValueError(
        f'config.{name} is {config[section][key]}; with config.distill.teacher '
        f'it must be {wanted}'
      )
  if config.diffusion.pred_type == 'eps':
    raise ValueError(
      "config.diffusion.pred_type = 'eps' says nothing of x at t = 1, where a "
      "student's largest step begins; distill a model that predicts x or v"
    )


def _check_shared(ours, theirs):
  for section, names in _SHARED.items():
    for name in names:
      if ours[section][name] != theirs[section][name]:
        raise ValueError(
          f'config.{section}.{name} is {ours[section][name]}, but '
          f'{theirs[section][name]} in the config of the teacher; they must be '
          'the same'
        )
  if theirs.diffusion.self_conditioning:
    raise ValueError(
      'config.distill.teacher names a model with self-conditioning, which '
      'cannot be distilled'
    )
