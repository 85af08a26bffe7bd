"""Commands: found by name, and every wrong call ends in one line."""

import contextlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from bitseg_jax import cli

# Makes every call in a process of its own, forked off from one that has the
# imports, which take seconds, behind it.
PROGRAM = """
import importlib, json, os, sys
from bitseg_jax import __main__

folder, *doors = sys.argv[1:]
for door in doors:
  importlib.import_module(f'bitseg_jax.{door}')
codes = []
for i, argv in enumerate(json.load(sys.stdin)):
  pid = os.fork()
  if not pid:
    for descriptor, name in (1, 'out'), (2, 'err'):
      os.dup2(os.open(f'{folder}/{i}.{name}', 577, 384), descriptor)
    sys.argv = ['bitseg', *argv]
    __main__.main()
    sys.exit()
  codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(codes))
"""

HELP = {'train': '--workdir', 'score': '--predictions'}
TRAIN = ['train', '--config=quickstart']
MULTS = '--config.model.channel_mults'
WRONG = [
  (['trian'], 'trian is no command; choose one of train'),
  (['score', '--daat=x'], 'daat'),
  (['score', '--data=x', '--split=val', '--predictions=p', 'more'], 'more is'),
  (['train', '--config=nowhere'], 'no such file; the configs in the'),
  (['train', '--config=nowhere/quickstart.py'], 'no such file; the configs in'),
  (
    [*TRAIN, '--config.train.batchsize=3'],
    '--config.train.batchsize=3: there is no such setting',
  ),
  ([*TRAIN, '--config.train.batch_size=eight'], 'batch_size'),
  # A tuple given again replaces the first, as any other setting does.
  (
    [*TRAIN, '--workdir=x', f'{MULTS}=(1,2)', f'{MULTS}=(0,)'],
    'channel_mults is 0 in (0,)',
  ),
  (TRAIN, '--workdir is missing'),
  (['train', '--workdir=x', '--coordinator=localhost'], 'give host:port'),
  (['train', '--workdir=x', '--process_id=1'], 'need --coordinator'),
  (['train', '--config=CONFIG_OF_A_DICT', '--workdir=x'], 'return a ConfigDi'),
  (['sweep', '--sweep='], '--sweep is empty'),
  (['sweep', '--sweep=fig3', '--output='], '--output is empty'),
  (['sweep', '--sweep=fig3', '--seeds='], '--seeds is empty'),
  (['score', '--data=x', '--split=val', '--predictions='], 'predictions is em'),
  ([*TRAIN, '--workdir='], '--workdir is empty'),
  (['train', '--config=CONFIG_THAT_FAILS', '--workdir=x'], 'division by zero'),
]


@pytest.fixture(scope='module')
def called(tmp_path_factory):
  """Makes all calls of this file; by their arguments, what came of each."""
  folder = tmp_path_factory.mktemp('calls')
  config = folder / 'a_dict.py'
  config.write_text("def get_config():\n  return {'seed': 0}\n")
  failing = folder / 'failing.py'
  failing.write_text('def get_config():\n  return 1 / 0\n')
  calls = [[], *([command, '--help'] for command in HELP)]
  calls += [argv for argv, _ in WRONG]
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, str(folder), 'main', 'score', 'sweep'],
    input=json.dumps(calls)
    .replace('CONFIG_OF_A_DICT', str(config))
    .replace('CONFIG_THAT_FAILS', str(failing)),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return {
    ' '.join(argv): SimpleNamespace(
      returncode=code,
      stdout=(folder / f'{i}.out').read_text(),
      stderr=(folder / f'{i}.err').read_text(),
    )
    for i, (argv, code) in enumerate(
      zip(calls, json.loads(done.stdout), strict=True)
    )
  }


def test_the_commands_are_listed(called):
  for command in cli.COMMANDS:
    assert f'\n  {command} ' in called[''].stdout


@pytest.mark.parametrize('command', HELP)
def test_help_names_the_flags_and_their_defaults(called, command):
  done = called[f'{command} --help']
  assert done.returncode == 0 and not done.stderr
  assert HELP[command] in done.stdout and '(default: ' in done.stdout
  assert '--data' in done.stdout or command == 'train'
  assert '--helpfull' not in done.stdout  # nor any other flag of a library


@pytest.mark.parametrize(('argv', 'line'), WRONG)
def test_a_wrong_call_ends_in_one_line(called, argv, line):
  done = called[' '.join(argv)]
  assert done.returncode == 1
  (said,) = done.stderr.strip().splitlines()
  assert said.startswith('error: ') and line in said


def test_an_error_is_the_last_line_after_a_progress_bar(capsys):
  def work():
    with contextlib.ExitStack() as stack:
      bar = tqdm(total=9)
      stack.callback(bar.close)  # the bar is drawn again where it is closed
      bar.update(3)
      return cli.say('what was wrong')

  assert cli.call(work) == 1
  lines = capsys.readouterr().err.replace('\r', '\n').strip().splitlines()
  assert lines[-1] == 'error: what was wrong'


def python(program, **options):
  command = [sys.executable, '-c', program]
  options = {'capture_output': 'stdout' not in options, **options}
  return subprocess.run(command, text=True, **options)


def test_an_error_comes_after_all_that_was_printed(tmp_path):
  """Also in a file, for which Python holds back what is printed."""
  program = (
    'from bitseg_jax import cli\nprint("a table")\ncli.say("what was wrong")\n'
  )
  environ = {k: v for k, v in os.environ.items() if k != 'PYTHONUNBUFFERED'}
  with open(tmp_path / 'log', 'w') as log:
    python(program, stdout=log, stderr=log, check=True, env=environ)
  assert (tmp_path / 'log').read_text() == 'a table\nerror: what was wrong\n'


def test_nothing_comes_after_an_error():
  """Libraries tell of what they cannot close when Python ends."""
  program = (
    'import atexit\n'
    'from bitseg_jax import cli\n'
    'def work():\n'
    '  atexit.register(lambda: 1 / 0)\n'
    '  raise OSError("the disk is full")\n'
    'cli.run(lambda: None, work)\n'
  )
  done = python(program)
  assert done.returncode == 1
  assert done.stderr == 'error: the disk is full\n'


def test_results_replace_results_and_nothing_else(tmp_path):
  path, link = tmp_path / 'a.json', tmp_path / 'link.json'
  for _ in range(2):  # where there is nothing, and where such results are
    cli.check_output(str(path), 'methods')
    path.write_text('{"methods": {}}')
  cli.check_output('', 'methods')
  link.symlink_to(path)
  for place, key in (path, 'rows'), (link, 'methods'), (tmp_path, 'methods'):
    with pytest.raises(OSError, match='something else'):
      cli.check_output(str(place), key)
  with pytest.raises(OSError, match='does not exist'):
    cli.check_output(str(tmp_path / 'no/a'), 'methods')


# A command that prints, shows a bar, and then has done its work.
WORK = """
import sys
from tqdm import tqdm
from bitseg_jax import cli

def work():
  for _ in tqdm(range(3)):
    print('x' * 100_000, flush=True)
    print('y', file=sys.stderr)
  open('done', 'w').close()

cli.run(lambda: None, work)
"""


@pytest.mark.parametrize('closed', ['<&-', '>&-', '2>&-', '>&- 2>&-', '| true'])
def test_work_is_done_whoever_listens(tmp_path, closed):
  """`| true` ends before all is printed, as head does."""
  shell = ['bash', '-o', 'pipefail', '-c', f'"$0" -c "$1" {closed}']
  done = subprocess.run(
    [*shell, sys.executable, WORK],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': os.getcwd()},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'Traceback' not in done.stderr and 'Exception' not in done.stderr
  assert (tmp_path / 'done').exists()


def test_a_full_disk_behind_the_output_is_told():
  program = 'from bitseg_jax import cli; cli.run(lambda: None, lambda: print())'
  with open('/dev/full', 'w') as full:
    done = python(program, stdout=full, stderr=subprocess.PIPE)
  assert done.returncode == 1
  assert done.stderr == 'error: [Errno 28] No space left on device\n'


@pytest.mark.parametrize('platform', ['cuda', 'gpu', 'tpu'])
def test_devices_that_are_not_there_are_told_in_one_line(platform):
  program = (
    'from bitseg_jax import cli; import jax; '
    'cli.run(lambda: None, lambda: print(jax.numpy.ones(3)))'
  )
  done = python(program, env={**os.environ, 'JAX_PLATFORMS': platform})
  (line,) = done.stderr.splitlines()
  assert line.startswith(f'error: JAX_PLATFORMS={platform}, but JAX finds no')
  assert done.returncode == 1


def test_what_a_command_printed_is_not_lost_when_it_fails():
  """Into a file, which is not flushed by every line."""
  program = (
    'from bitseg_jax import cli\n'
    'cli.run(lambda: None, lambda: print("1 could not be read") or 1)\n'
  )
  done = python(program)
  assert (done.returncode, done.stdout) == (1, '1 could not be read\n')
