"""Stands in for gcloud, srun and others: notes its arguments, acts a little.

test_launch.py puts it into the PATH under their names. $STAND_IN is a folder:

  calls     every call, one JSON list [name, argument, ...] a line
  request   state of the queued resource; not there: none was asked for
  vm        state of its VM
  worker_N  home of each worker, gone with the VM
  far       what stands in on the workers only
  lives     what each life of a VM brings, one a line: preempted, or exit codes
            of the runs on it, such as 75 0, or 75/143 0 by worker
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

NAME, *ARGUMENTS = pathlib.Path(sys.argv[0]).name, *sys.argv[1:]
STATE = pathlib.Path(os.environ['STAND_IN'])
WORKERS = 2


def main():
  with open(STATE / 'calls', 'a') as file:
    file.write(json.dumps([NAME, *ARGUMENTS]) + '\n')
  if (STATE / f'fail_{NAME}').exists():
    return 1
  return globals().get(NAME.replace('-', '_'), lambda *a: 0)(*ARGUMENTS) or 0


def gcloud(group, *rest):
  if group == 'storage':
    (pathlib.Path(rest[-1]) / 'copied').touch()
    return 0
  _, kind, verb, name, *rest = rest
  return (queued_resources if kind == 'queued-resources' else tpu_vm)(
    verb, name, *rest
  )


def queued_resources(verb, name, *rest):
  request, vm = STATE / 'request', STATE / 'vm'
  if verb == 'create':
    request.write_text('ACTIVE')
    vm.write_text('READY')
    for i in range(WORKERS):
      (STATE / f'worker_{i}').mkdir()
  elif not request.exists():
    print(f'ERROR: NOT_FOUND: {name}', file=sys.stderr)
    return 1
  elif verb == 'delete':
    request.unlink()
    for i in range(WORKERS):
      shutil.rmtree(STATE / f'worker_{i}', ignore_errors=True)
  else:
    print(request.read_text())
  return 0


def tpu_vm(verb, *rest):
  homes = [STATE / f'worker_{i}' for i in range(WORKERS)]
  if verb == 'describe':
    print((STATE / 'vm').read_text())
  elif verb == 'scp':
    for home in homes:
      shutil.copy(rest[0], home / rest[1].partition(':')[2])
  else:
    options = dict(item.split('=', 1) for item in rest if '=' in item)
    # As the real one: all workers get to run, the first bad code counts.
    codes = [
      subprocess.run(
        ['bash', '-c', options['--command']],
        cwd=home,
        env={
          **os.environ,
          'HOME': str(home),
          'PATH': f'{STATE}/far:{os.environ["PATH"]}',
          'WORKER': str(i),
        },
      ).returncode
      for i, home in enumerate(homes)
      if options['--worker'] in ('all', str(i))
    ]
    return next(filter(None, codes), 0)
  return 0


def make(*targets):
  if (STATE / f'fail_make_{os.environ["WORKER"]}').exists():
    return 2
  pathlib.Path('.venv/bin').mkdir(parents=True)
  shutil.copy(sys.argv[0], '.venv/bin/python')
  pathlib.Path('.venv/installed-tpu').touch()
  return 0


def python(*flags):
  """A run; worker 0 writes the script of its life."""
  lives = STATE / 'lives'
  runs = pathlib.Path.home() / 'runs_so_far'
  runs.write_text(f'{runs.read_text() if runs.exists() else ""}x')
  created = (STATE / 'calls').read_text().count('"create"')
  life = lives.read_text().splitlines()[created - 1]
  if life == 'preempted':
    (STATE / 'vm').write_text('PREEMPTED')
    time.sleep(0.2)
    return 143
  codes = life.split()[len(runs.read_text()) - 1].split('/')
  return int(codes[int(os.environ['WORKER']) % len(codes)])


def python3(option, *rest):
  """As old as that of the TPU images, but for finding another with uv."""
  if rest[-3:-1] == ('python', 'find'):
    print('/python/of/uv')
  return int(option == '-c')


def sudo(*command):
  if 'tee' in command:
    sys.stdin.read()
  elif 'install' in command:
    shutil.copy(sys.argv[0], pathlib.Path(sys.argv[0]).with_name('gcsfuse'))
  return 0


def mountpoint(*arguments):
  return 1


def srun(*arguments):
  *until_told, code = (STATE / 'srun_code').read_text().split()
  for _ in range(100 if until_told else 0):
    if (STATE / 'told').exists():
      return int(code)
    time.sleep(0.05)
  return 1 if until_told else int(code)


def scancel(*arguments):
  (STATE / 'told').touch()


if __name__ == '__main__':
  sys.exit(main())
