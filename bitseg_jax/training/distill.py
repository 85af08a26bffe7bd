"""Distillation: a model learns to draw its teacher's samples in fewer steps.

One DDIM step of the student is to land where several of the teacher land,
however the two are sampled; what the teacher's guidance computes from two
branches the student computes from one. Trained in stages, each with the student
before as its teacher, it halves the steps again and again.

Source: Salimans and Ho, "Progressive distillation for fast sampling of
diffusion models", ICLR 2022; guidance: Meng et al., "On distillation of guided
diffusion models", CVPR 2023.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from bitseg_jax import diffusion, sampler
from bitseg_jax.runs import build, weights

# What x_hat means and what the networks see, which both models must share.
_SHARED = {
  'codes': ('encoding', 'num_codes', 'palette', 'palette_seed'),
  'diffusion': ('schedule', 'input_scale', 'pred_type', 'tanh'),
  'data': ('image_size', 'code_size'),
}


def make_target_fn(
  teacher: build.Experiment,
  num_steps: int,
  substeps: int,
  guidance_weight: float = 0.0,
) -> Callable[..., jax.Array]:
  """Makes the function that computes what a step of the student must predict.

  Along DDIM's path z / sigma grows by x_hat times the increase of
  alpha / sigma. So the one x_hat that leads from t to s is the mean of the
  x_hats on the way, weighted by these increases.

  Args:
    teacher: parts of its run; the student has the same schedule.
    num_steps: of the student, in each of which the teacher takes `substeps`.
    guidance_weight: of the teacher, see diffusion.guided_denoiser.

  Returns:
    target_fn(params of the teacher, image uint8 [B, S, S, 3],
    z_t [B D, G, G, C], t [B D], valid bool [B D, G, G]) -> x_hat float32
    [B D, G, G, C] in [-1, 1], 0 where not valid.
  """

  def target_fn(params, image, z_t, t, valid):
    seen = teacher.encode(params, image)
    seen = jnp.repeat(seen, len(z_t) // len(seen), axis=0)
    predict = diffusion.guided_denoiser(
      teacher.denoise, params, seen, guidance_weight
    )
    logsnr = lambda time: teacher.schedule.logsnr(time)[:, None, None, None]
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
  config: ConfigDict,
) -> tuple[tuple[Any, ...], Callable[..., jax.Array] | None]:
  """Reads the teacher that the config of a student's run names.

  Returns ((its parameters,), target_fn as of make_target_fn), or ((), None) if
  it names none. Raises ValueError or OSError if it does not fit.
  """
  if not config.distill.teacher:
    return (), None
  if config.sample.guidance_weight != 0:
    raise ValueError(
      f'config.sample.guidance_weight is {config.sample.guidance_weight}; with '
      'config.distill.teacher, whose guidance is learned, it must be 0'
    )
  if config.diffusion.pred_type == 'eps':
    raise ValueError(
      "config.diffusion.pred_type = 'eps' says nothing of x at t = 1, where a "
      "student's largest step begins; distill a model that predicts x or v"
    )
  parts, recipe = build.build(config), build.make_recipe(config)
  if recipe.loss_weight(parts.schedule, jnp.ones(1))[0] < 1e-3:
    raise ValueError(
      'config.diffusion.loss_weight leaves a student no weight at t = 1, where '
      'its first step begins; set it to uniform, and decoupled to False'
    )
  teacher = weights.read(config.distill.teacher)
  for section, names in _SHARED.items():
    for name in names:
      ours, theirs = config[section][name], teacher.config[section][name]
      if ours != theirs:
        raise ValueError(
          f'config.{section}.{name} is {ours}, but {theirs} in the config of '
          'the teacher; they must be the same'
        )
  num_steps, taught = config.sample.num_steps, teacher.config.sample
  steps = config.distill.teacher_steps or taught.num_steps
  if teacher.config.distill.teacher and steps != taught.num_steps:
    raise ValueError(
      f'config.distill.teacher_steps is {steps}, but the teacher is a student '
      f'itself, which learned to take {taught.num_steps}'
    )
  if steps % num_steps:
    raise ValueError(
      f'the teacher takes {steps} steps, no multiple of '
      f'config.sample.num_steps = {num_steps}; choose another of these, or '
      'set config.distill.teacher_steps'
    )
  of_teacher, guidance = build.build(teacher.config), taught.guidance_weight
  return (teacher.params,), make_target_fn(
    of_teacher, num_steps, steps // num_steps, guidance
  )
