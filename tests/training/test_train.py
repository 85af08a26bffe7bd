"""Training: every variant learns, state moves as it should, errors speak."""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import flags
from ml_collections import config_flags

from bitseg_jax import main as door
from bitseg_jax import metrics
from bitseg_jax.configs import base
from bitseg_jax.data.procedural import ProceduralScenes
from bitseg_jax.evaluation import draw_samples, evaluate
from bitseg_jax.runs import build, devices, programs, schema, train_state
from bitseg_jax.training import step as train_step
from bitseg_jax.training import train
from tests.batches import training_batch

# Choices that have nothing to do with each other share a run. Fig. 7 decouples
# the sigmoid weight alone.
VARIANTS = [
  {'pred_type': 'eps', 'tanh': False},
  {'pred_type': 'v', 'tanh': False, 'palette': 'different'},
  {'loss_weight': 'sigmoid', 'decoupled': True, 'palette': 'random'},
  {'loss_weight': 'uniform', 'decoupled': False, 'encoding': 'onehot'},
  {'loss_weight': 'SNR', 'decoupled': False, 'encoding': 'rgb'},
  {'loss_weight': 'SNR_plus1', 'decoupled': False, 'schedule': 'linear'},
  {'loss_weight': 'SNR_trunc', 'decoupled': False, 'schedule': 'linear_simple'},
  {'palette': 'range', 'overflow': 'largest'},
  {'palette': 'none'},
]


def test_every_choice_is_in_a_variant():
  for name, setting in {**base.DIFFUSION, **base.CODES}.items():
    tried = {setting.default, *(v[name] for v in VARIANTS if name in v)}
    missing = set(setting.choices or ()) - tried
    assert not missing, f'add {missing} of {name} to VARIANTS'


@pytest.fixture
def flat_config(tiny_config):
  """One level without attention: compiles in a few seconds."""
  tiny_config.model.channel_mults = (1,)
  tiny_config.model.attention_levels = ()
  return tiny_config


def measure(parts, recipe):
  """(params, batch, key) -> 'loss' and 'grad_norm' of a step."""
  optimizer = optax.sgd(0.0)
  step = train_step.make_step(parts, recipe, optimizer, devices.make_mesh())

  def measured(params, batch, key):
    params = jax.tree.map(jnp.copy, params)  # the step donates them
    return step(train_state.create_state(params, optimizer), batch, key)[1]

  return measured


# The first is enough for every day; all take minutes.
@pytest.mark.parametrize(
  'variant',
  [
    VARIANTS[0],
    *(pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS[1:]),
  ],
  ids=str,
)
def test_every_variant_learns(flat_config, variant):
  for name, value in variant.items():
    section = 'diffusion' if name in flat_config.diffusion else 'codes'
    flat_config[section][name] = value
  parts = build.build(flat_config)
  mesh = devices.make_mesh()
  recipe = build.make_recipe(flat_config)._replace(ema_decay=0.99)
  optimizer = train_state.make_optimizer(3e-3)
  step_fn = train_step.make_step(parts, recipe, optimizer, mesh)
  batches = iter(
    build.training_batches(
      flat_config, [ProceduralScenes(100, 16)], parts.palette, mesh
    )
  )
  state = train_state.create_state(
    parts.init_params(jax.random.key(0)), optimizer
  )
  # The same batch and draws before and after: single losses are too noisy.
  batch = devices.put_batch(next(batches), mesh)
  measured, keys = (
    measure(parts, recipe),
    jax.random.split(jax.random.key(2), 16),
  )
  mean_loss = lambda params: np.mean(
    [measured(params, batch, key)['loss'] for key in keys]
  )
  before = mean_loss(state.params)
  for _ in range(40):
    batch_now = devices.put_batch(next(batches), mesh)
    state, _ = step_fn(state, batch_now, jax.random.key(1))
  assert mean_loss(state.params) < before


def test_the_average_forgets_its_start_quickly():
  ema, decay = {'w': jnp.zeros(())}, 0.9999
  for step in range(100):
    ema = train_state.update_ema(ema, {'w': jnp.ones(())}, step, decay)
  assert ema['w'] > 0.99
  still = {'w': jnp.float32([0.1, -0.2, 0.3])}  # as of a frozen encoder
  for step in range(3):
    same = jax.jit(train_state.update_ema)(still, still, step, decay)
    np.testing.assert_array_equal(same['w'], still['w'])
  held = train_state.update_ema(ema, {'w': jnp.zeros(())}, 10**7, decay)
  np.testing.assert_allclose(held['w'], decay * ema['w'], rtol=1e-6)


def test_learning_rate_rises_holds_and_falls_to_zero():
  rate = train_state.learning_rate_schedule(2.0, 100, 10, 40)
  np.testing.assert_allclose(rate(0), 0)
  np.testing.assert_allclose(rate(5), 1)
  np.testing.assert_allclose([rate(10), rate(60)], 2)
  np.testing.assert_allclose(rate(80), 1, rtol=1e-6)
  np.testing.assert_allclose(rate(100), 0, atol=1e-6)
  # A short run is divided in proportion: 2 steps and 8.
  short = train_state.learning_rate_schedule(2.0, 10, 10, 40)
  np.testing.assert_allclose([short(1), short(2)], [1, 2])
  np.testing.assert_allclose([short(6), short(10)], [1, 0], atol=1e-6)


def test_gradients_are_clipped_by_their_global_norm():
  optimizer = train_state.make_optimizer(1.0, grad_clip=1.0)
  params = {'w': jnp.zeros(3)}
  grads = {'w': jnp.array([3e4, 0.0, 4e4])}
  clipped, _ = optax.clip_by_global_norm(1.0).update(grads, None)
  _, state = optimizer.update(grads, optimizer.init(params), params)
  first_moment = optax.tree.get(state, 'mu')['w']
  np.testing.assert_allclose(first_moment, 0.1 * clipped['w'], rtol=1e-5)


def test_muon_turns_the_gradient_of_a_kernel_into_an_orthogonal_matrix():
  rng = np.random.default_rng(0)
  grads = {
    'kernel': jnp.asarray(rng.standard_normal((3, 3, 4, 16)), jnp.float32),
    'bias': jnp.asarray(rng.standard_normal(16), jnp.float32),
  }
  params = jax.tree.map(jnp.zeros_like, grads)

  def step(scale, name):
    optimizer = train_state.make_optimizer(0.1, name=name)
    scaled = jax.tree.map(lambda g: scale * g, grads)
    return optimizer.update(scaled, optimizer.init(params), params)[0]

  muon, adamw = step(1.0, 'muon'), step(1.0, 'adamw')
  # All singular values are near each other, which are not the gradient's.
  singular = np.linalg.svd(muon['kernel'].reshape(36, 16), compute_uv=False)
  before = np.linalg.svd(grads['kernel'].reshape(36, 16), compute_uv=False)
  assert singular.max() < 2 * singular.min()
  assert before.max() > 3 * before.min()
  # A step is as long as the learning rate says, whatever the gradient's size.
  size = np.sqrt(np.square(muon['kernel']).mean())
  np.testing.assert_allclose(size, 0.1, rtol=0.2)
  shorter = step(1e-3, 'muon')['kernel']
  np.testing.assert_allclose(shorter, muon['kernel'], rtol=1e-3, atol=1e-5)
  assert not np.allclose(muon['kernel'], adamw['kernel'], rtol=0.5)
  # Of the bias each number goes its own way, as with AdamW.
  ratio = muon['bias'] / adamw['bias']
  np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


def test_dropped_photos_are_not_seen(flat_config):
  flat_config.diffusion.update(pred_type='eps', tanh=False)
  parts = build.build(flat_config)
  params = jax.tree.map(lambda x: x + 0.1, parts.init_params(jax.random.key(0)))
  codes = np.zeros((4, 16, 16), np.int16)
  images = np.random.default_rng(0).integers(0, 255, (2, 4, 16, 16, 3), 'u1')

  def losses(rate):
    measured = measure(parts, build.Recipe(cond_drop_rate=rate))
    batches = [{'image': image, 'codes': codes} for image in images]
    key = jax.random.key(0)
    return [measured(params, batch, key)['loss'] for batch in batches]

  first, second = losses(1.0)
  assert first == second
  first, second = losses(0.0)
  assert first != second


def test_draws_of_one_photo_are_as_good_as_copies_of_it(flat_config):
  """The loss of 2 photos with 3 draws is that of 6 photos with one each."""
  parts, params = build.build(flat_config), None
  params = parts.init_params(jax.random.key(0))
  source = ProceduralScenes(2, 16)
  batch = {
    'image': np.stack([source[i]['image'] for i in range(2)]),
    'codes': np.stack([source[i]['id_maps'][0] % 4 for i in range(2)]),
  }
  copies = {name: np.repeat(a, 3, axis=0) for name, a in batch.items()}
  loss = lambda batch, draws: measure(parts, build.Recipe(draws))(
    params, batch, jax.random.key(1)
  )['loss']
  np.testing.assert_allclose(loss(batch, 3), loss(copies, 1), rtol=1e-6)


def test_unlabelled_pixels_do_not_train(flat_config):
  parts = build.build(flat_config)
  params = parts.init_params(jax.random.key(0))
  batch = {
    'image': np.zeros((4, 16, 16, 3), np.uint8),
    'codes': np.full((4, 16, 16), -1, np.int16),
  }
  found = measure(parts, build.Recipe())(params, batch, jax.random.key(0))
  assert found['loss'] == found['grad_norm'] == 0


@pytest.mark.parametrize('parts', [2, 4])
def test_a_batch_taken_in_parts_has_the_same_gradient(parts):
  rng = np.random.default_rng(0)
  params = {'w': jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)}
  inputs = {
    'x': jnp.asarray(rng.normal(size=(8, 5)), jnp.float32),
    'factor': jnp.asarray(rng.normal(size=24), jnp.float32),  # three rows each
  }
  loss_fn = lambda params, inputs: jnp.mean(
    jnp.repeat(inputs['x'] @ params['w'], 3, axis=0) ** 2
    * inputs['factor'][:, None]
  )
  whole = train_step.mean_gradient(loss_fn, params, inputs, 1)
  in_parts = train_step.mean_gradient(loss_fn, params, inputs, parts, True)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, in_parts
  )


@pytest.mark.slow
def test_a_batch_taken_in_parts_needs_less_memory(tiny_config):
  tiny_config.train.batch_size = 64

  def need(parts):
    tiny_config.train.accumulate = parts
    run, mesh = build.build(tiny_config), devices.make_mesh()
    _, optimizer = build.make_optimizer(tiny_config)
    _, abstract = build.make_state(run, optimizer, mesh)
    recipe = build.make_recipe(tiny_config)
    step = train_step.make_step(run, recipe, optimizer, mesh)
    batch = training_batch(tiny_config, run, mesh)
    program = step.lower(abstract, batch, jax.random.key(0)).compile()
    return program.memory_analysis().temp_size_in_bytes

  assert need(2) < 0.7 * need(1)


def test_a_loss_that_is_not_finite_stops_and_names_the_step():
  fine, bad = (
    {'loss': 1.0, 'grad_norm': 2.0},
    {'loss': 1.0, 'grad_norm': np.inf},
  )
  assert train._collect([fine, fine], 10, 5) == fine
  with pytest.raises(
    train.NonFiniteLossError,
    match='grad_norm is inf at step 9; the last good checkpoint is step 5',
  ):
    train._collect([fine, bad, fine], 10, 5)


def test_evaluation_does_not_depend_on_the_batch(flat_config):
  # Untrained x-prediction is 0 everywhere; eps-prediction shows the noise.
  flat_config.diffusion.update(pred_type='eps', tanh=False)
  parts = build.build(flat_config)
  mesh = devices.make_mesh()
  source = ProceduralScenes(5, 16)
  functions = draw_samples.make_functions(
    parts, build.SamplerOptions(**flat_config.sample), mesh
  )
  params = parts.init_params(jax.random.key(0))
  run = lambda batch_size: evaluate.score_samples(
    functions,
    params,
    parts,
    source,
    mesh,
    evaluate.Options(batch_size, num_samples=2, num_shown=5),
  )
  ragged, whole = run(4), run(5)
  assert [i['name'] for i in ragged.images] == [i['name'] for i in whole.images]
  for i in range(5):  # up to float rounding near a threshold
    assert (ragged.samples[i] == whole.samples[i]).mean() > 0.99
  assert [len(image['ari']) for image in whole.images] == [2] * 5
  assert np.any(whole.samples[0][0] != whole.samples[0][1])


def test_summary_means_and_oracle():
  scores = [0.0, 1.0], [0.5, 0.5], [np.nan, np.nan]
  images = [dict.fromkeys(metrics.names('table'), s) for s in scores]
  summary = evaluate.summarize(evaluate.Scores(images, {}))
  assert summary['ari'] == 0.5
  assert summary['ari_oracle_best_of_2'] == 0.75
  assert summary['voi_bits_oracle_best_of_2'] == 0.25  # lower is better


WRONG = {
  'model.attention_levels': ((5,), 'names level 5'),
  'model.num_heads': (3, 'cannot be split'),
  'model.dtype': ('float16', 'one of float32, bfloat16'),
  'data.image_size': (17, 'multiple of 2'),
  'data.augment': ('ful', 'one of full, flip, none'),
  'data.crop_scale': ((1.0, 0.5), 'least, most'),
  'data.crop_aspect': (0.5, 'at least 1'),
  'data.num_workers': (-1, 'at least 0'),
  'data.dirs': (('a/val', 'b/val'), 'must differ'),
  'data.weights': ((1.0, 2.0), 'one over 0 for each of the 0'),
  'codes.num_codes': (8, 'fills no square palette'),
  'codes.encoding': ('bits', 'one of analog_bits'),
  'codes.palette': ('gray', 'one of similar'),
  'diffusion.pred_type': ('eps', 'tanh bounds the output'),
  'diffusion.schedule': ('cosin', 'one of cosine'),
  'diffusion.loss_weight': ('snr', 'one of sigmoid'),
  'train.batch_size': (0, 'at least 1'),
  'train.keep_checkpoints': (1, 'at least 2'),
  'sample.method': ('no such method', 'one of ddpm, ddim'),
}


@pytest.mark.parametrize('name', WRONG)
def test_settings_that_cannot_work_get_one_line(tiny_config, name):
  value, message = WRONG[name]
  section, key = name.split('.')
  tiny_config[section][key] = value
  with pytest.raises(ValueError, match=message) as caught:
    build.build(tiny_config)
  assert '\n' not in str(caught.value)


def test_a_dataset_is_not_ignored_where_scenes_are_drawn(tiny_config):
  tiny_config.data.dir = 'datasets/mine'
  with pytest.raises(ValueError, match=r'data\.source is procedural'):
    build.open_sources(tiny_config, 'train')


def test_compiling_does_not_count_as_slow_training(
  flat_config, tmp_path, monkeypatch
):
  clock, passed = time.perf_counter, [0.0]
  compile_ahead = programs.compile_ahead

  def compile_slowly(*args):
    passed[0] += 1e6
    return compile_ahead(*args)

  monkeypatch.setattr(time, 'perf_counter', lambda: clock() + passed[0])
  monkeypatch.setattr(programs, 'compile_ahead', compile_slowly)
  flat_config.train.update(num_steps=2, warmup_steps=0, decay_steps=0)
  flat_config.train.update(log_every=1, eval_every=2, checkpoint_every=2)
  flat_config.eval.during_training = 0
  assert train.train(flat_config, tmp_path)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  rates = [json.loads(line).get('images_per_second') for line in lines]
  assert all(rate > 8 / 1e5 for rate in rates if rate is not None)
  assert any(rates)


def test_an_evaluation_scores_the_data_that_flags_name(
  tiny_config, tmp_path, monkeypatch
):
  """Of the config, which is another run's, only that and how to score."""
  saved, seen = tiny_config, []
  saved.data.update(source='tfds', dirs=('a', 'b'), weights=(1.0, 2.0))
  argv = ['x', '--config=configs/ambiguous.py', f'--workdir={tmp_path}']
  argv += ['--mode=eval', '--config.sample.num_steps=3']
  monkeypatch.setattr(door.checkpoint, 'read_config', lambda workdir: saved)
  monkeypatch.setattr(
    door.evaluate,
    'evaluate',
    lambda config, *args, **kwargs: seen.append(config),
  )
  monkeypatch.setattr(door.evaluate, 'format_results', lambda results: 'table')

  def scored(more):
    values = flags.FlagValues()
    with monkeypatch.context() as patch:
      patch.setattr(flags, 'FLAGS', values)
      patch.setattr(sys, 'argv', [*argv, *more])
      config_flags.DEFINE_config_file('config', flag_values=values)
      for name in ('workdir', 'mode', 'format'):
        flags.DEFINE_string(name, 'png', '', flag_values=values)
      values(sys.argv)
      assert not door._run(values)
    schema.check(seen[-1])
    assert seen[-1].sample.num_steps == 3
    assert seen[-1].model == saved.model
    data = seen[-1].data
    return data.source, data.eval_split, tuple(data.dirs) or data.dir

  assert scored([]) == ('tfds', 'val', ('a', 'b'))
  assert scored(['--config.data.eval_split=test'])[1] == 'test'
  assert scored(['--config.data.dir=c'])[2] == 'c'
  assert scored(["--config.data.dirs=('d',)"])[2] == ('d',)
  drawn = ['--config.data.source=ambiguous', '--config.data.dirs=()']
  assert scored(drawn)[0] == 'ambiguous'


def test_batches_must_divide_over_the_devices(monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 3)
  with pytest.raises(ValueError, match='3 devices do not divide'):
    devices.check_devices('train.batch_size', 8)


def test_procedural_training_and_evaluation_scenes_are_disjoint(tiny_config):
  train_scenes, eval_scenes = (
    {scene['image'].tobytes() for scene in source}
    for source in (
      build.open_sources(tiny_config, split)['procedural']
      for split in ('train', 'eval')
    )
  )
  assert len(train_scenes) == 100 and len(eval_scenes) == 8
  assert not train_scenes & eval_scenes
