"""Ctrl-C and SIGTERM at random moments of every long command.

python tests/campaigns/signals.py [--signals=40] [--seed=0] [--minutes=60]

Commands are started, get a signal at some moment from the first imports on, and
must end soon, in one line, with the exit code 130 (Ctrl-C) or 143 (SIGTERM); a
training that has begun saves and ends with 75. Ctrl-C goes to all processes of
the command, as from a terminal; SIGTERM to the first. At last each command is
repeated until it is done: its results must be, byte for byte, those of one that
got no signal. Counted are

  ended      in one line, with the exit code for it
  saved      a training that saved and ended with 75
  done       it had its results already
  TRACEBACK  a Python traceback is shown
  UNCLEAR    another exit code, or not one line at the end
  LATE       it took over 20 s to end, or left processes behind
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from PIL import Image

from bitseg_jax.data.prepared import splits
from bitseg_jax.runs import build, checkpoint, devices

TINY = (
  '--config=quickstart',
  '--config.data.image_size=16',
  '--config.data.num_scenes=1000',
  '--config.data.num_eval_scenes=40',
  '--config.model.base_channels=16',
  '--config.model.channel_mults=(1,)',
  '--config.model.attention_levels=()',
  '--config.train.batch_size=4',
  '--config.train.num_steps=100',
  '--config.train.eval_every=100',
  '--config.train.warmup_steps=1',
  '--config.train.decay_steps=1',
  '--config.train.log_every=1',
  '--config.train.checkpoint_every=25',
  '--config.eval.during_training=0',
  '--config.eval.num_samples=2',
)
COLUMNS = 'ended', 'saved', 'done', 'TRACEBACK', 'UNCLEAR', 'LATE'
LATE = 20  # seconds
PHOTOS = 300


def make_inputs(folder: pathlib.Path) -> None:
  """Photos with ids, for all commands but training."""
  rng = np.random.default_rng(0)
  for kind in 'images', 'labels', 'few':
    (folder / kind).mkdir(parents=True)
  for i in range(PHOTOS):
    photo = rng.integers(0, 256, (64, 64, 3), np.uint8)
    ids = np.kron(rng.integers(1, 9, (4, 4)), np.ones((16, 16))).astype('uint8')
    Image.fromarray(photo).save(folder / f'images/{i:03d}.png')
    Image.fromarray(ids).save(folder / f'labels/{i:03d}.png')
    if i < 3:
      Image.fromarray(photo).save(folder / f'few/{i:03d}.png')
  (folder / 'val.txt').write_text('\n'.join(f'{i:03d}' for i in range(PHOTOS)))


def commands(given: pathlib.Path, folder: pathlib.Path) -> dict[str, list]:
  """The commands by name; what they write goes into a folder."""
  data = f'--data={given}/prepared', '--split=val'
  run = f'--workdir={folder}/run'
  return {
    'train': ['train', *TINY, '--mode=train', run],
    'train with workers': [
      *('train', *TINY, '--mode=train', '--config.data.num_workers=1'),
      f'--workdir={folder}/workers',
    ],
    # Of a run that is there.
    'evaluate': ['train', '--mode=eval', f'--workdir={folder}/trained'],
    'predict': [
      *('predict', f'--input={given}/in/few', f'--output={folder}/predicted'),
      *('--num_samples=2', '--outputs=labels,panoptic'),
    ],
    'prepare': [
      *('prepare', '--dataset=folder', f'--source={given}/in'),
      f'--output={folder}/prepared',
    ],
    'score': [
      *('score', *data, f'--predictions={given}/in/labels'),
      f'--output={folder}/scores.json',
    ],
  }


def start(command: list[str], log: pathlib.Path) -> subprocess.Popen:
  """Starts a command in a group of its own."""
  with open(log, 'wb') as file:
    return subprocess.Popen(
      [sys.executable, '-m', 'bitseg_jax', *command],
      stdout=file,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )


def first_moment() -> float:
  """Seconds in which Python itself starts, and the package has no say."""
  program = [sys.executable, '-c', 'import bitseg_jax']
  began = time.monotonic()
  subprocess.run(program, check=True)
  return 2 * (time.monotonic() - began)


def finish(command: list[str], log: pathlib.Path) -> float:
  """Runs a command to its end; the seconds it took."""
  began = time.monotonic()
  if code := start(command, log).wait(1200):
    raise SystemExit(f'{command} ended with {code}:\n{log.read_text()[-2000:]}')
  return time.monotonic() - began


def interrupt(
  command: list[str], log: pathlib.Path, number: int, moment: float
) -> tuple[str, float]:
  """Gives a command a signal at a moment; (what came of it, seconds)."""
  process = start(command, log)
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.wait(moment)
  began, ended = time.monotonic(), process.poll() is not None
  if not ended:
    send = os.killpg if number == signal.SIGINT else os.kill
    send(process.pid, number)
  try:
    code = process.wait(LATE)
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return 'LATE', LATE
  seconds = time.monotonic() - began
  said = log.read_text(errors='replace').replace('\r', '\n').strip()
  if 'Traceback (most recent call last)' in said or 'Exception ig' in said:
    return 'TRACEBACK', seconds
  if left_over(process.pid):
    return 'LATE', seconds
  errors = [line for line in said.splitlines() if line.startswith('error: ')]
  last = (said.splitlines() or [''])[-1]
  if code == 0:
    return 'done' if not errors else 'UNCLEAR', seconds
  if code == 75 and command[0] == 'train' and not errors:
    return 'saved', seconds
  good = code == 128 + number and len(errors) == 1 and errors[0] == last
  return 'ended' if good and not ended else 'UNCLEAR', seconds


def left_over(group: int) -> bool:
  """Whether a process of a group runs on; workers have a moment to end."""
  for _ in range(50):
    try:
      os.killpg(group, 0)
    except ProcessLookupError:
      return False
    time.sleep(0.1)
  os.killpg(group, signal.SIGKILL)
  return True


def results(name: str, folder: pathlib.Path) -> object:
  """What a command has made, in a form that can be compared."""
  if name.startswith('train'):
    return state_of(folder / ('workers' if 'workers' in name else 'run'))
  if name == 'evaluate':
    return json.loads((folder / 'trained/results.json').read_text())
  if name == 'score':
    return json.loads((folder / 'scores.json').read_text())
  if name == 'predict':
    found = sorted(folder.glob('predicted/**/*.png'))
    return {path.name: path.read_bytes() for path in found}
  # The files of two runs differ in bytes that hold no record.
  source = splits.open_split(folder / 'prepared', 'val')
  records = [source[i] for i in range(len(source))]
  arrays = [(r['name'], r['image'], *r['id_maps']) for r in records]
  return [(name, *[x.tobytes() for x in row]) for name, *row in arrays]


def state_of(workdir: pathlib.Path) -> list[bytes]:
  """Leaves of the newest state of a run."""
  config = checkpoint.read_config(workdir)
  parts, mesh = build.build(config), devices.make_mesh()
  _, optimizer = build.make_optimizer(config)
  _, abstract = build.make_state(parts, optimizer, mesh)
  with checkpoint.open_manager(workdir) as manager:
    state = checkpoint.restore_newest(manager, abstract)
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def main() -> int:
  """Prints a table; the exit code is 1 if anything went wrong."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--signals', type=int, default=40)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--minutes', type=float, default=60)
  asked = parser.parse_args()
  # Inherited, were they ignored here, as where this runs in the background.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  rng = np.random.default_rng(asked.seed)
  deadline = time.monotonic() + 60 * asked.minutes
  table, slowest, wrong = {}, collections.Counter(), []
  with tempfile.TemporaryDirectory() as scratch:
    top = pathlib.Path(scratch)
    make_inputs(top / 'in')
    log = top / 'log'
    whole, often = commands(top, top / 'whole'), commands(top, top / 'often')
    prepare = [*whole['prepare'][:-1], f'--output={top}/prepared']
    finish(prepare, log)
    # Nothing is kept of what is compiled: signals shall come amid it.
    takes = {}
    for name, command in whole.items():
      if name == 'evaluate':
        for folder in 'whole', 'often':
          shutil.copytree(top / 'whole/run', top / folder / 'trained')
      takes[name] = finish(command, log)
      print(f'{name}: {takes[name]:.0f} s', file=sys.stderr, flush=True)
    for i in range(asked.signals):
      if time.monotonic() > deadline:
        break
      name = list(often)[i % len(often)]
      number = (signal.SIGINT, signal.SIGTERM)[rng.integers(2)]
      moment = first_moment() + rng.uniform(0, takes[name])
      for compiled in (top / 'often').glob('*/compiled'):
        shutil.rmtree(compiled)
      what, seconds = interrupt(often[name], log, number, moment)
      table.setdefault(name, collections.Counter())[what] += 1
      slowest[name] = max(slowest[name], seconds)
      said = log.read_text(errors='replace')[-800:] * what.isupper()
      print(
        f'{name}, signal {number} after {moment:.1f} s: {what}, '
        f'{seconds:.1f} s {said}',
        file=sys.stderr,
        flush=True,
      )
    for name, command in often.items():
      finish(command, log)
      if results(name, top / 'whole') != results(name, top / 'often'):
        wrong.append(name)
  return show(asked.seed, table, slowest, wrong)


def show(seed, table, slowest, wrong):
  """Prints the table; 1 if something is wrong in it, else 0."""
  print(f'seed {seed}')
  head = ''.join(f'{column:>11}' for column in COLUMNS)
  print(f'{"":<20}{head}{"slowest, s":>12}{"result":>11}')
  for name, row in table.items():
    counts = ''.join(f'{row[column]:>11}' for column in COLUMNS)
    result = 'OTHER' if name in wrong else 'same'
    print(f'{name:<20}{counts}{slowest[name]:>12.1f}{result:>11}')
  bad = any(row[column] for row in table.values() for column in COLUMNS[3:])
  return int(bad or bool(wrong))


if __name__ == '__main__':
  sys.exit(main())
