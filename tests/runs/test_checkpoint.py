"""Stop and resume through the real train loop, orbax and grain."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from bitseg_jax import main as door
from bitseg_jax.data.prepared import write
from bitseg_jax.data.source import Item, Source
from bitseg_jax.evaluation import evaluate
from bitseg_jax.runs import (
  build,
  checkpoint,
  devices,
  log,
  schema,
  train_state,
)
from bitseg_jax.training import stopping, train

SETTINGS = (
  '--config.data.image_size=16',
  '--config.model.base_channels=16',
  '--config.model.channel_mults=(1,2)',
  '--config.model.attention_levels=(1,)',
  '--config.train.optimizer=adamw',  # muon takes longer to compile
  '--config.train.warmup_steps=1',
  '--config.train.decay_steps=1',
  '--config.train.log_every=1',
  '--config.eval.during_training=0',
)


FLAT = '--config.model.channel_mults=(1,)', '--config.model.attention_levels=()'


def start_main(workdir, *flags, environ=None):
  """Starts `python -m bitseg_jax.main` on a tiny model."""
  return subprocess.Popen(
    [
      sys.executable,
      *('-m', 'bitseg_jax.main', '--config=configs/quickstart.py'),
      *('--mode=train', f'--workdir={workdir}', *SETTINGS, *flags),
    ],
    env={**os.environ, **(environ or {})},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def start_both(workdir, *flags, count=2, environ=None):
  """Starts two processes of one run, or more."""
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  group = f'--coordinator=localhost:{port}', f'--num_processes={count}'
  return [
    start_main(workdir, *flags, *group, f'--process_id={i}', environ=environ)
    for i in range(count)
  ]


def finish(process, code=0):
  output, _ = process.communicate(timeout=600)
  assert process.returncode == code, output
  return output


def logged(workdir):
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  if not path.exists():
    return []
  lines = path.read_text().splitlines(keepends=True)
  return [json.loads(line) for line in lines if line.endswith('\n')]


def wait_for(workdir, process, step=1):
  """Waits until a running process has logged a step."""
  while not logged(workdir) or logged(workdir)[-1]['step'] < step:
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.01)


def params_of(config, workdir, kind='params'):
  """(step, parameters) of the newest checkpoint, as numpy arrays."""
  abstract = devices.placed(build.abstract_params(config), devices.make_mesh())
  step, params = checkpoint.read_params(workdir, abstract, kind)
  return step, jax.tree.map(np.asarray, params)


NOTHING = contextlib.nullcontext()


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope='module')
def flat():
  """Patches of a config for the quickest model there is."""

  def patch(config):
    config.model.channel_mults = (1,)
    config.model.attention_levels = ()
    return config

  return patch


def stop_at(at):
  """In place of stopping.stop_signal: as if a signal came during one step."""
  return lambda manager: contextlib.nullcontext(lambda step: step == at)


def test_a_step_that_is_evaluated_stays_whole(
  random_run, tmp_path, monkeypatch, capsys
):
  run = tmp_path / 'run'
  shutil.copytree(random_run, run)
  step = run / 'checkpoints' / '1'
  given = {'workdir': str(step), 'config': None, 'mode': 'eval'}
  monkeypatch.setattr(
    door.evaluate,
    'evaluate',
    lambda config, workdir, output, **_: (output / 'results.json').write_text(
      str(checkpoint.read_digest(workdir, 1))
    ),
  )
  monkeypatch.setattr(door.evaluate, 'format_results', str)
  assert not door._run(types.SimpleNamespace(**given, format='png'))
  said = capsys.readouterr().out
  assert f'results: {run}/at_step_1/results.json' in said
  checkpoint.check_digest(step)
  assert (run / 'at_step_1/results.json').is_file()
  given |= {'mode': 'train', 'config': checkpoint.read_config(run)}
  with pytest.raises(ValueError, match=f'; training takes the run, {run}$'):
    door._run(types.SimpleNamespace(**given))


def test_a_run_ends_where_it_may(tiny_config, flat, tmp_path):
  config = flat(tiny_config)
  train.train(config, tmp_path)
  config.train.num_steps = 5
  with pytest.raises(ValueError, match='taken 6 steps already, over'):
    train.train(config, tmp_path)


def changed(config, settings):
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(settings)
  return config


DIRS = {'data.source': 'tfds', 'data.dirs': ('in/a', 'in/b')}


@pytest.mark.parametrize(
  ('saved', 'asked', 'message'),
  [
    ({}, {'train.accumulate': 2}, None),
    ({}, {'codes.palette': 'none'}, r'codes\.palette = similar, not none'),
    ({}, {'model.base_channels': 32}, 'base_channels = 16, not 32'),
    ({}, {'diffusion.input_scale': 0.2}, 'input_scale = .*, not 0.2'),
    ({}, {'train.learning_rate': 0.5}, 'learning_rate = .*, not 0.5'),
    ({}, {'train.ema_decay': 0.5}, 'ema_decay = .*, not 0.5'),
    ({}, {'seed': 7}, 'config.seed = .*, not 7'),
    ({'distill.teacher': 'there'}, {'distill.teacher': 'here'}, None),
    (
      {'distill.teacher': 'here'},
      {'distill.teacher': ''},
      'teacher = some, not none',
    ),
    ({}, {'distill.teacher': 'here'}, 'teacher = none, not some'),
    (DIRS, {'data.dirs': ('else/a', 'else/b')}, None),
    *(
      (DIRS, {'data.dirs': dirs}, r'run with config.data.dirs = .*, not ')
      for dirs in (('c',), ('else/b', 'else/a'), ('a', 'b', 'c'), ())
    ),
  ],
)
def test_folders_may_move_but_another_setting_is_another_run(
  tiny_config, saved, asked, message
):
  found = schema.complete(changed(tiny_config, saved).to_dict())
  wanted = changed(tiny_config, {**saved, **asked})
  with pytest.raises(ValueError, match=message) if message else NOTHING:
    schema.check_same_run(wanted, found, 'run')


def test_stopped_and_resumed_is_never_stopped(tiny_config, flat, tmp_path):
  config = flat(tiny_config)
  train.train(config, tmp_path / 'whole')
  stopped = tmp_path / 'stopped'
  make, safe = build.training_batches, []

  class Readers:
    """Batches that note whether step 3 is safe when they are closed."""

    def __init__(self, *args):
      self.batches = iter(make(*args))

    def __iter__(self):
      return self

    def __next__(self):
      return next(self.batches)

    def close(self):
      safe.append((stopped / 'checkpoints' / '3' / 'digest.json').exists())
      self.batches.close()

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(stopping, 'stop_signal', stop_at(3))
    patch.setattr(build, 'training_batches', Readers)
    assert not train.train(config, stopped)
  # Many readers take longer to end than a machine has that is taken away.
  assert safe == [True]
  assert params_of(config, stopped)[0] == 3
  assert train.train(config, stopped)
  for kind in ('params', 'ema_params'):
    step, whole = params_of(config, tmp_path / 'whole', kind)
    assert step == config.train.num_steps
    assert_equal(whole, params_of(config, stopped, kind)[1])
  losses = lambda workdir: [line['loss'] for line in logged(workdir)]
  assert losses(stopped) == losses(tmp_path / 'whole')
  steps = [int(p.name) for p in (stopped / 'checkpoints').iterdir()]
  assert sorted(steps) == [4, 6]  # keep_checkpoints


@pytest.mark.parametrize('damage', ['empty', 'truncated', 'half_deleted'])
def test_a_damaged_step_is_passed_over(
  tiny_config, flat, tmp_path, damage, caplog
):
  config = flat(tiny_config)
  train.train(config, tmp_path)
  whole = params_of(config, tmp_path)[1]
  newest = tmp_path / 'checkpoints' / '6'
  damaged = newest if damage == 'empty' else newest / 'params'
  files = [p for p in damaged.rglob('*') if p.is_file()]
  if damage == 'truncated':
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
  for path in files if damage != 'truncated' else ():
    path.unlink()
  assert params_of(config, tmp_path)[0] == 4  # reading moves nothing
  assert newest.exists()
  train.train(config, tmp_path)
  assert 'passing over step 6' in caplog.text
  assert (tmp_path / 'damaged' / '6').exists()
  step, again = params_of(config, tmp_path)
  assert step == 6
  assert_equal(whole, again)


def test_nothing_whole_is_an_error_not_a_fresh_start(
  tiny_config, flat, tmp_path
):
  config = flat(tiny_config)
  train.train(config, tmp_path)
  for path in [p for p in tmp_path.rglob('params/*') if p.is_file()]:
    path.unlink()
  with pytest.raises(
    OSError, match=r'no whole checkpoint in .*/6/.* is missing; to begin anew'
  ):
    train.train(config, tmp_path)
  assert not (tmp_path / 'damaged').exists()


def newest_of(workdir):
  """The newest step of a run that is whole."""
  folder = workdir / 'checkpoints'
  steps = checkpoint._steps(folder)
  return checkpoint._newest_whole(folder, steps, checkpoint.ITEMS)[0]


@pytest.mark.parametrize('item', ['params', 'optimizer', 'config', ''])
def test_no_flipped_bit_is_accepted(run_of_two_steps, item):
  """In the newest step: the older one is taken, whatever file it is in."""
  config, folder = run_of_two_steps
  newest = folder / 'checkpoints' / '2'
  files = [p for p in (newest / item).rglob('*') if p.is_file()]
  rng = np.random.default_rng(0)
  for path in rng.permutation(files)[:6]:
    whole = path.read_bytes()
    if not whole:
      continue
    damaged = bytearray(whole)
    damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
    path.write_bytes(bytes(damaged))
    with pytest.raises(checkpoint.DamagedError, match=path.name):
      checkpoint.check_digest(newest)
    assert newest_of(folder) == 1
    path.write_bytes(whole)
  assert params_of(config, folder)[0] == 2


def test_what_orbax_did_not_finish_is_no_step(run_of_two_steps):
  digest = run_of_two_steps[1] / 'checkpoints/2/digest.json'
  kept = digest.rename(digest.parents[2] / 'kept')
  with pytest.raises(checkpoint.DamagedError, match='never finished'):
    checkpoint.check_digest(digest.parent)
  assert newest_of(run_of_two_steps[1]) == 1
  kept.rename(digest)


@pytest.fixture(scope='module')
def run_of_two_steps(random_run, tmp_path_factory):
  """(config, a copy of random_run that may be damaged)."""
  folder = tmp_path_factory.mktemp('flips') / 'run'
  shutil.copytree(random_run, folder)
  return checkpoint.read_config(folder), folder


@pytest.fixture
def no_digest_of_2(monkeypatch):
  """A state to save; the disk refuses to take the digest of step 2."""
  write = checkpoint.write_digest

  def write_or_fail(folder):
    if folder.name == '2':
      raise OSError(122, 'Disk quota exceeded')
    write(folder)

  monkeypatch.setattr(checkpoint, 'write_digest', write_or_fail)
  return train_state.create_state({'w': jnp.ones(3)}, optax.sgd(0.1))


def test_no_whole_step_goes_for_one_without_a_digest(no_digest_of_2, tmp_path):
  failed = lambda: pytest.raises(OSError, match=r'cannot be saved to .*quota')
  with checkpoint.open_manager(tmp_path) as manager:
    for step in (1, 2):
      manager.save(step, no_digest_of_2, {})
    with failed():
      manager.save(3, no_digest_of_2, {})
    assert newest_of(tmp_path) == 1
  with checkpoint.open_manager(tmp_path / 'other') as manager:
    manager.save(2, no_digest_of_2, {})
    manager.orbax.wait_until_finished()
    with failed():  # told at the next step, not the next save
      manager.check()


def test_checkpoints_older_than_a_setting_resume(
  tiny_config, flat, tmp_path, monkeypatch
):
  config = flat(tiny_config)
  save = checkpoint.Manager.save

  def save_as_before_there_were_parts(*args):
    *rest, saved = args
    del saved['train']['accumulate']
    save(*rest, saved)

  with monkeypatch.context() as patch:
    patch.setattr(stopping, 'stop_signal', stop_at(2))
    patch.setattr(checkpoint.Manager, 'save', save_as_before_there_were_parts)
    train.train(config, tmp_path)
  train.train(config, tmp_path)
  assert logged(tmp_path)[-1]['step'] == config.train.num_steps


def test_a_run_that_kept_a_single_checkpoint_goes_on_with_two(tiny_config):
  saved = tiny_config.to_dict()
  saved['train']['keep_checkpoints'] = 1  # an earlier version took it
  assert schema.complete(saved).train.keep_checkpoints == 2


def test_configs_with_settings_that_are_gone_are_read(tiny_config):
  saved = tiny_config.to_dict()
  saved['sample']['method'] = 'heun'
  saved['train']['steps_per_call'] = 10
  saved['model'] |= {'remat': True, 'fused_attention': True}
  tiny_config.sample.method = 'ddim'
  assert schema.complete(saved) == tiny_config
  saved['diffusion']['size_power'] = 1.0  # it made another model
  with pytest.raises(ValueError, match='size_power = '):
    schema.complete(saved)


def test_init_from_takes_the_average_and_starts_at_step_0(
  tiny_config, flat, tmp_path
):
  config = flat(tiny_config)
  train.train(config, tmp_path / 'first')
  config.init_from = str(tmp_path / 'first')
  config.train.learning_rate = 0.0
  train.train(config, tmp_path / 'second')
  step, params = params_of(config, tmp_path / 'second')
  assert step == config.train.num_steps
  assert_equal(params, params_of(config, tmp_path / 'first', 'ema_params')[1])
  config.init_from = str(tmp_path / 'nowhere')
  with pytest.raises(FileNotFoundError, match='nowhere'):
    train.train(config, tmp_path / 'third')


def test_evaluation_needs_only_the_workdir(tiny_config, flat, tmp_path):
  config = flat(tiny_config)
  train.train(config, tmp_path)
  config = checkpoint.read_config(tmp_path)
  config.train.fsdp = 8  # as if it was trained on more devices
  results = evaluate.evaluate(config, tmp_path)
  saved = json.loads((tmp_path / 'results.json').read_text())
  assert saved['ema'] == results['ema'] and saved['raw'] == results['raw']
  assert len(saved['per_image']) == saved['num_images'] == 8
  assert saved['step'] == 6
  assert 'ari_oracle_best_of_2' in saved['ema']
  assert (tmp_path / 'gallery.png').stat().st_size > 1000


def test_several_datasets_train_with_workers_and_are_evaluated_apart(
  tiny_config, flat, tmp_path
):
  for name, count in (('first', 5), ('second', 3)):
    path = tmp_path / f'{name}.png'
    Image.new('RGB', (24, 16), (90, 160, 40)).save(path)
    items = [Item(f'{name}{i}', path, ('ids',)) for i in range(count)]
    ids = np.arange(24, dtype=np.int32) // 12 + np.zeros((16, 1), np.int32)
    source = Source({'train': items, 'val': items}, lambda _: [ids], [], [])  # noqa: B023
    write.write_dataset(source, tmp_path / name)
  config = flat(tiny_config)
  config.data.source = 'tfds'
  config.data.dirs = (str(tmp_path / 'first'), str(tmp_path / 'second'))
  config.data.weights = (1.0, 2.0)
  config.data.num_workers = 2
  config.data.crop_scale = (0.5, 1.5)
  config.eval.during_training = 2
  workdir = tmp_path / 'run'
  train.train(config, workdir)
  assert not multiprocessing.active_children()
  config = train.ConfigDict(checkpoint.read_config(workdir))
  results = evaluate.evaluate(config, workdir)
  saved = json.loads((workdir / 'results.json').read_text())['datasets']
  for name, count in (('first', 5), ('second', 3)):
    assert saved[name]['num_images'] == len(saved[name]['per_image']) == count
    assert saved[name]['ema'] == results['datasets'][name]['ema']
    assert (workdir / f'gallery_{name}.png').stat().st_size > 1000
    by_count = saved[name]['by_num_samples']
    # Two of two: the medoid is one of them, the oracle the better one.
    assert by_count['2']['medoid']['ari'] <= by_count['2']['oracle']['ari']
    assert by_count['1']['one']['ari'] == pytest.approx(
      saved[name]['ema']['ari']
    )
    assert (workdir / f'samples/0000006_{name}.png').exists()
  assert 'second, step 6, 3 images' in evaluate.format_results(results)
  assert any('eval_second_ari' in line for line in logged(workdir))


@pytest.mark.slow
def test_killed_three_times_and_resumed_is_never_killed(tiny_config, tmp_path):
  steps = ('--config.train.num_steps=30', '--config.train.checkpoint_every=4')
  finish(start_main(tmp_path / 'whole', *steps))
  killed = tmp_path / 'killed'
  rng = np.random.default_rng(0)
  for victim in np.sort(rng.choice(np.arange(6, 28), 3, replace=False)):
    process = start_main(killed, *steps)
    wait_for(killed, process, victim)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
  output = finish(start_main(killed, *steps))
  assert 'resuming' in output
  config = train.ConfigDict(checkpoint.read_config(killed))
  for kind in ('params', 'ema_params'):
    step, params = params_of(config, killed, kind)
    assert step == 30
    assert_equal(params, params_of(config, tmp_path / 'whole', kind)[1])


@pytest.mark.slow
def test_many_devices_and_processes_train_alike(tmp_path):
  steps = '--config.train.num_steps=20', '--config.train.checkpoint_every=20'
  steps = *steps, *FLAT
  for n in ('1', '8'):
    finish(start_main(tmp_path / n, *steps, environ={'JAX_NUM_CPU_DEVICES': n}))
  for process in start_both(tmp_path / 'processes', *steps):
    finish(process)
  losses = lambda name: [line['loss'] for line in logged(tmp_path / name)]
  one = losses('1')
  assert len(one) == 20
  np.testing.assert_allclose(losses('8'), one, rtol=1e-5)
  np.testing.assert_allclose(losses('processes'), one, rtol=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_other_processes_and_another_fsdp(tmp_path):
  flags = '--config.train.decay_steps=0', '--config.train.batch_size=8', *FLAT
  # Processes, devices of each, and devices that share one copy of the state.
  stages = (1, 1, 1), (2, 2, 4), (4, 1, 1), (1, 4, 4), (1, 1, 1)
  for i, (count, on_each, fsdp) in enumerate(stages):
    more = (
      f'--config.train.num_steps={4 * i + 4}',
      f'--config.train.fsdp={fsdp}',
    )
    environ = {'JAX_NUM_CPU_DEVICES': str(on_each)}
    if count == 1:
      running = [start_main(tmp_path / 'moved', *flags, *more, environ=environ)]
    else:
      running = start_both(
        tmp_path / 'moved', *flags, *more, count=count, environ=environ
      )
    for process in running:
      finish(process)
  finish(start_main(tmp_path / 'whole', *flags, '--config.train.num_steps=20'))
  whole, moved = logged(tmp_path / 'whole'), logged(tmp_path / 'moved')
  assert [line['step'] for line in moved] == list(range(1, 21))
  for name in ('loss', 'grad_norm'):
    np.testing.assert_allclose(
      [line[name] for line in moved], [line[name] for line in whole], rtol=1e-5
    )


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
  steps = '--config.train.num_steps=100', '--config.train.checkpoint_every=100'
  process = start_main(tmp_path, *steps)
  wait_for(tmp_path, process)
  process.send_signal(signal.SIGTERM)
  output = finish(process, os.EX_TEMPFAIL)
  assert 'run the same command to resume' in output.strip().splitlines()[-1]
  saved = [int(p.name) for p in (tmp_path / 'checkpoints').iterdir()]
  assert len(saved) == 1 and 0 < saved[0] < 100
  finish(start_main(tmp_path, *steps))
  assert logged(tmp_path)[-1]['step'] == 100


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_two_processes_stop_together(tmp_path, number):
  both = start_both(tmp_path, '--config.train.num_steps=2000')
  wait_for(tmp_path, both[0])
  for process in both:
    process.send_signal(number)
  for process in both:
    finish(process, os.EX_TEMPFAIL)
  (saved,) = [int(p.name) for p in (tmp_path / 'checkpoints').iterdir()]
  assert 0 < saved < 2000


@pytest.mark.slow
def test_a_dataset_that_is_missing_ends_in_one_line(tmp_path):
  output = finish(start_main(tmp_path, '--config.data.source=tfds'), 1)
  assert 'bitseg_jax.prepare' in output.splitlines()[-1]
  assert 'Traceback' not in output


def test_a_second_run_in_a_workdir_is_refused(tiny_config, flat, tmp_path):
  config = flat(tiny_config)
  with (
    log.hold(tmp_path),
    pytest.raises(OSError, match='is in use by process'),
  ):
    train.train(config, tmp_path)
  assert not (tmp_path / 'metrics.jsonl').exists()


def test_an_average_that_is_not_finite_is_not_saved():
  state = train_state.TrainState(
    step=jnp.array(3),
    params={'w': jnp.ones(3)},
    ema_params={'w': jnp.array([1, jnp.nan, 1])},
    opt_state={},
  )
  with pytest.raises(train.NonFiniteLossError, match=r'last good .* is step 2'):
    train._check_finite(state, 3, 2)


def test_a_run_is_saved_by_time_too(tiny_config, flat, tmp_path):
  config = flat(tiny_config)
  config.train.update(log_every=2, checkpoint_every=5, checkpoint_minutes=1e-9)
  config.train.update(num_steps=6, keep_checkpoints=9)
  train.train(config, tmp_path)
  steps = {p.name for p in (tmp_path / 'checkpoints').iterdir()}
  assert steps == {'2', '4', '5', '6'}


@pytest.mark.slow
def test_a_step_that_fails_while_it_is_written_ends_the_run_in_a_line(tmp_path):
  program = (
    'import resource, sys; from bitseg_jax import cli, main;'
    # No file may grow over this: a write fails in the middle of a step.
    'resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000));'
    'cli.run(main.define_flags, main.main)'
  )
  steps = '--config.train.num_steps=1000', '--config.train.checkpoint_every=2'
  done = subprocess.run(
    [
      *(sys.executable, '-c', program, '--config=quickstart', '--mode=train'),
      *(f'--workdir={tmp_path}', *SETTINGS, *steps),
    ],
    env={**os.environ, 'JAX_ENABLE_COMPILATION_CACHE': '0'},
    capture_output=True,
    text=True,
    timeout=240,
  )
  assert done.returncode == 1
  lines = done.stderr.replace('\r', '\n').strip().splitlines()
  assert re.match('error: .* cannot be saved to', lines[-1])
  assert 'Traceback' not in done.stderr
  assert not checkpoint._steps(tmp_path / 'checkpoints')


def test_all_processes_take_the_step_of_process_0(random_run, monkeypatch):
  """Whatever another one finds; only process 0 looks for damage."""
  told = []

  def broadcast(value):  # process 0 has passed over step 2
    told.append(value.tolist())
    return np.array(1)

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  multihost = checkpoint.multihost_utils
  monkeypatch.setattr(multihost, 'broadcast_one_to_all', broadcast)
  found = checkpoint._newest_whole(random_run / 'checkpoints', [1, 2], [])
  assert told == [2]
  assert found == (1, [2])
