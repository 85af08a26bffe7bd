"""Kills a tiny training run at random moments; nothing of it may be lost.

python tests/campaigns/kills.py [--kills=50] [--seed=0] [--minutes=60]
  [--processes=1,2] [--steps_a_kill=30]

A run of one process and a run of two are killed (SIGKILL) half of the times
each, while they import, compile, restore, train and save, and are started again
every time. At the end parameters, averages and optimizer must be, bit for bit,
those of a run that was never killed. Prints a table; the exit code is 1 if
anything differs.
"""

import argparse
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from bitseg_jax.runs import build, checkpoint, devices

TINY = (
  '--config=quickstart',
  '--mode=train',
  '--config.data.image_size=16',
  '--config.data.num_scenes=1000',
  '--config.model.base_channels=16',
  '--config.model.channel_mults=(1,)',
  '--config.model.attention_levels=()',
  '--config.train.batch_size=4',
  '--config.train.warmup_steps=1',
  '--config.train.decay_steps=1',
  '--config.train.log_every=1',
  '--config.train.checkpoint_every=5',
  '--config.eval.during_training=0',
)
TRAINING = 2.0  # seconds, about, in which half of the kills fall


def start(workdir, processes, num_steps):
  """Starts the processes of the run; what they say goes to workdir.log."""
  group = []
  if processes > 1:
    with socket.socket() as probe:
      probe.bind(('localhost', 0))
      port = probe.getsockname()[1]
    group = [f'--coordinator=localhost:{port}', f'--num_processes={processes}']
  steps = max(num_steps, 7)
  command = [sys.executable, '-m', 'bitseg_jax.main', *TINY, *group]
  command += [f'--workdir={workdir}', f'--config.train.num_steps={steps}']
  command += [f'--config.train.eval_every={steps}']
  with open(f'{workdir}.log', 'a') as log:
    return [
      subprocess.Popen(
        command + [f'--process_id={i}'] * (processes > 1),
        stdout=log,
        stderr=subprocess.STDOUT,
      )
      for i in range(processes)
    ]


def finish(started, workdir, limit=1800):
  """Waits until all have ended well; returns the seconds."""
  began = time.monotonic()
  for process in started:
    if process.wait(limit):
      log = pathlib.Path(f'{workdir}.log').read_text()
      raise SystemExit(f'{workdir} failed:\n{log[-3000:]}')
  return time.monotonic() - began


def first_step(workdir, started, before):
  """Seconds until the run logs a step beyond those before."""
  began, path = time.monotonic(), pathlib.Path(workdir) / 'metrics.jsonl'
  while not path.is_file() or path.stat().st_size <= before:
    if any(process.poll() for process in started):
      finish(started, workdir)
    time.sleep(0.05)
  return time.monotonic() - began


def state_of(workdir):
  """Leaves of the newest state, as numpy arrays."""
  config = checkpoint.read_config(workdir)
  mesh = devices.make_mesh()
  parts = build.build(config)
  _, optimizer = build.make_optimizer(config)
  _, abstract = build.make_state(parts, optimizer, mesh)
  with checkpoint.open_manager(workdir) as manager:
    state = checkpoint.restore_newest(manager, abstract)
  return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def kill_often(folder, processes, kills, num_steps, startup, rng, deadline):
  """Kills a run, starts it again, and so on; (workdir, kills, of a start)."""
  workdir, done, early, lives = folder / f'killed_{processes}', 0, 0, 0
  while done < kills and time.monotonic() < deadline:
    started = start(workdir, processes, num_steps)
    lives += 1
    # Half of the moments lie before the first step, half after it.
    moment = rng.uniform(0, 2)
    early += moment < 1
    time.sleep(startup * min(moment, 1) + TRAINING * max(0, moment - 1))
    order = rng.permutation(processes)
    ended = [process.poll() for process in started]
    if any(code not in (None, 0) for code in ended):
      finish(started, workdir)
    for i in order:
      started[i].send_signal(signal.SIGKILL)
      time.sleep(rng.uniform(0, 0.2))
    for process in started:
      process.wait()
    done += None in ended
    if None not in ended:
      break  # the run has ended: there is nothing left to kill
    print(f'{processes} processes: kill {done}', file=sys.stderr, flush=True)
  finish(start(workdir, processes, num_steps), workdir)
  return workdir, done, early


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=50)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--minutes', type=float, default=60)
  parser.add_argument('--processes', default='1,2')
  # Fewer where a step takes long, as of two processes on few cores.
  parser.add_argument('--steps_a_kill', type=int, default=30)
  args = parser.parse_args()
  counts = [int(count) for count in args.processes.split(',')]
  rng = np.random.default_rng(args.seed)
  deadline = time.monotonic() + 60 * args.minutes
  rows, different = [], 0
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder / 'compiled')
    for processes in counts:
      kills = args.kills // len(counts)
      num_steps = args.steps_a_kill * max(kills, 1)
      whole = folder / f'whole_{processes}'
      finish(start(whole, processes, num_steps), whole)
      again = folder / f'again_{processes}'  # with all that is compiled
      started = start(again, processes, num_steps)
      startup = first_step(again, started, 0)
      for process in started:
        process.kill()
        process.wait()
      began = time.monotonic()
      killed, done, early = kill_often(
        folder, processes, kills, num_steps, startup, rng, deadline
      )
      pairs = zip(state_of(whole), state_of(killed), strict=True)
      equal = all(a.tobytes() == b.tobytes() for a, b in pairs)
      different += not equal
      seconds = time.monotonic() - began
      rows.append((processes, done, early, num_steps, seconds, equal))
  print(f'seed {args.seed}')
  print('processes  kills  before a step  steps  seconds  bit for bit the same')
  for processes, done, early, steps, seconds, equal in rows:
    print(
      f'{processes:>9}{done:>7}{early:>15}{steps:>7}{seconds:>9.0f}'
      f'{"yes" if equal else "NO":>22}'
    )
  return 1 if different else 0


if __name__ == '__main__':
  sys.exit(main())
