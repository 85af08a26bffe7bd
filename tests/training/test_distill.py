"""Distillation: a student's step lands where its teacher's steps do."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitseg_jax import codec, diffusion, sampler, schedule
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.configs import quickstart
from bitseg_jax.runs import build, checkpoint, devices, train_state
from bitseg_jax.training import distill, train
from bitseg_jax.training import step as train_step

SHAPE = (4, 8, 8, 2)
NOISE = schedule.Schedule()


def denoise(params, z_t, image, t):
  """Some function of all it is given, that guidance takes out of [-1, 1]."""
  seen = jnp.sin(params * z_t) + jnp.cos(t)[:, None, None, None]
  return jnp.tanh(seen + image.mean(-1, keepdims=True))


TEACHER = SimpleNamespace(
  encode=lambda params, image: image, denoise=denoise, schedule=NOISE
)


@pytest.fixture
def given():
  z_t, image = jax.random.normal(jax.random.key(0), (2, *SHAPE))
  valid = jnp.ones(SHAPE[:3], bool).at[:, 6:].set(False)
  return 3.0, z_t, image, valid


def path(predict, z, t, valid, num_steps, substeps):
  """The teacher's z and x_hat after each of its steps."""
  for i in range(1, substeps + 1):
    s = jnp.maximum(t - i / (num_steps * substeps), 0)
    start = t - (i - 1) / (num_steps * substeps)
    x_hat = jnp.clip(predict(z, start), -1, 1) * valid[..., None]
    logsnr = [NOISE.logsnr(time)[:, None, None, None] for time in (start, s)]
    z = sampler.ddim_step(z, x_hat, *logsnr)
    yield z, x_hat


@pytest.mark.parametrize('guidance_weight', [0.0, 1.0])
def test_one_step_lands_where_the_steps_of_the_teacher_do(
  given, guidance_weight
):
  params, z_t, image, valid = given
  target_fn = distill.make_target_fn(TEACHER, 4, 3, guidance_weight)
  predict = diffusion.guided_denoiser(denoise, params, image, guidance_weight)
  t = jnp.full(4, 0.75)
  *_, (z_s, _) = path(predict, z_t, t, valid, 4, 3)
  target = target_fn(params, image, z_t, t, valid)
  logsnr = [NOISE.logsnr(time)[:, None, None, None] for time in (t, t - 0.25)]
  landed = sampler.ddim_step(z_t, target, *logsnr)
  np.testing.assert_allclose(landed, z_s, atol=1e-4)
  assert jnp.abs(target).max() <= 1 + 1e-5
  assert not target[:, 6:].any()


def test_the_last_step_predicts_what_the_teacher_does_last(given):
  params, z_t, image, valid = given
  target_fn = distill.make_target_fn(TEACHER, 4, 2)
  predict = diffusion.guided_denoiser(denoise, params, image, 0)
  t = jnp.full(4, 0.25)
  *_, (_, last) = path(predict, z_t, t, valid, 4, 2)
  target = target_fn(params, image, z_t, t, valid)
  np.testing.assert_allclose(target, last, atol=1e-3)


def test_students_differ_with_their_noise_at_a_single_step(given):
  params, z_t, image, valid = given
  target_fn = distill.make_target_fn(TEACHER, 1, 4)
  targets = [
    target_fn(params, image, z, jnp.ones(4), valid) for z in (z_t, -z_t)
  ]
  assert jnp.abs(targets[0] - targets[1]).max() > 0.1


def test_times_are_those_at_which_a_step_begins():
  seen, optimizer = [], optax.sgd(0.0)

  def target_fn(params, image, z_t, t, valid):
    jax.debug.callback(seen.append, t)
    return z_t

  parts = SimpleNamespace(**vars(TEACHER), codec=codec.make_codec('onehot', 4))
  recipe, mesh = build.Recipe(num_times=4), devices.make_mesh()
  step = train_step.make_step(parts, recipe, optimizer, mesh, None, target_fn)
  state = train_state.create_state(jnp.float32(3), optimizer)
  batch = {
    'image': np.zeros((64, 8, 8, 3), np.float32),
    'codes': np.zeros((64, 8, 8), np.int32),
  }
  step(state, batch, jax.random.key(0), 3.0)
  jax.effects_barrier()
  times, counts = np.unique(seen[0], return_counts=True)
  np.testing.assert_array_equal(times, [0.25, 0.5, 0.75, 1])
  assert (counts == 16).all()


@pytest.fixture
def student_config(random_run):
  """Learns the random run, of two guided steps, in one without guidance."""
  config = checkpoint.read_config(random_run)
  config.data.update(num_scenes=64, num_eval_scenes=8)
  config.train.update(
    batch_size=8,
    num_steps=12,
    learning_rate=1e-3,
    warmup_steps=1,
    decay_steps=1,
    log_every=1,
    eval_every=12,
    checkpoint_every=6,
  )
  config.eval.during_training = 0
  config.distill.teacher = str(random_run)
  config.sample.update(num_steps=1, guidance_weight=0.0)
  return config


def test_a_student_starts_as_its_teacher_and_comes_to_draw_alike(
  student_config, random_run, tmp_path, draw_photo
):
  assert train.train(student_config, tmp_path)
  # The config of the student says how it is sampled; nothing else has to.
  student = Segmenter.from_checkpoint(tmp_path)
  options = student.sampler_options()
  assert options.num_steps == 1 and options.guidance_weight == 0
  student.segment(draw_photo(0, 16, 16), num_samples=2)

  parts = build.build(student_config)
  (teacher,), target_fn = distill.load_teacher(student_config)
  source = build.open_sources(student_config, 'eval')['procedural']
  batch = {
    'image': np.stack([scene['image'] for scene in source]),
    'codes': np.zeros((8, 16, 16), np.int16),
  }
  recipe, optimizer = build.make_recipe(student_config), optax.sgd(0.0)
  step = train_step.make_step(
    parts, recipe, optimizer, devices.make_mesh(), None, target_fn
  )

  def loss(params):
    params = jax.tree.map(jnp.copy, params)  # the step donates them
    state = train_state.create_state(params, optimizer)
    return step(state, batch, jax.random.key(5), teacher)[1]['loss']

  shapes = jax.eval_shape(parts.init_params, jax.random.key(0))
  _, params = checkpoint.read_params(tmp_path, shapes, 'params')
  assert loss(params) < loss(teacher)

  student_config.sample.num_steps = 2
  with pytest.raises(ValueError, match=r'config.sample.num_steps = 1, not 2'):
    train.train(student_config, tmp_path)


WRONG = {
  'sample.num_steps': (4, 'the teacher takes 2 steps, no multiple of'),
  'distill.teacher_steps': (1, None),
  'sample.guidance_weight': (1.0, 'it must be 0'),
  'diffusion.input_scale': (0.5, 'but 0.1 in the config of the teacher'),
  'codes.num_codes': (4, 'but 16 in the config of the teacher'),
  'data.image_size': (32, 'but 16 in the config of the teacher'),
  'distill.teacher': ('nowhere', 'no such folder'),
}


@pytest.mark.parametrize('name', WRONG)
def test_students_that_do_not_fit_their_teacher_get_one_line(
  student_config, name
):
  value, message = WRONG[name]
  section, key = name.split('.')
  student_config[section][key] = value
  if message is None:
    distill.load_teacher(student_config)
    return
  with pytest.raises((ValueError, OSError), match=message) as caught:
    distill.load_teacher(student_config)
  assert '\n' not in str(caught.value)


def test_a_student_teaches_the_steps_that_it_has_learned(
  student_config, monkeypatch
):
  found = distill.weights.read(student_config.distill.teacher)
  config = found.config.copy_and_resolve_references()
  config.distill.teacher = 'its own teacher'
  monkeypatch.setattr(
    distill.weights, 'read', lambda name: found._replace(config=config)
  )
  distill.load_teacher(student_config)
  student_config.distill.teacher_steps = 4
  with pytest.raises(ValueError, match='which learned to take 2'):
    distill.load_teacher(student_config)


def test_a_student_is_evaluated_as_it_was_trained(student_config):
  given = quickstart.get_config()
  given.sample.num_steps = 5
  asked = lambda *named: build.evaluated(student_config, given, named)
  learned = student_config.sample
  assert asked().sample.num_steps == learned.num_steps
  assert asked().sample.guidance_weight == learned.guidance_weight == 0
  assert asked('sample.num_steps').sample.num_steps == 5
  assert given.sample.num_steps == 5 and given.sample.guidance_weight


def test_a_run_without_a_teacher_has_no_target():
  config = quickstart.get_config()
  assert distill.load_teacher(config) == ((), None)


def test_a_weight_that_hides_the_first_step_is_refused(random_run):
  config = quickstart.get_config()
  config.distill.teacher = str(random_run)
  config.sample.guidance_weight = 0.0
  config.diffusion.update(loss_weight='sigmoid', decoupled=True)
  with pytest.raises(ValueError, match='no weight at t = 1'):
    distill.load_teacher(config)
