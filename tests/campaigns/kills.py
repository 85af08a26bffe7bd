"""Runs killed at any moment: each ends with the weights of one never killed.

python tests/campaigns/kills.py [--count=50] [--seed=0]

A tiny run of one process, and one of two, is started, killed after a time drawn
at random (with two, one of them or both), and started again, until it has been
killed often enough; then it is left to end. Its parameters, their average and
the optimizer's state must be those of a run never killed, bit for bit.
"""

import argparse
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from tqdm import tqdm

from bitseg_jax.runtime import checkpoint, experiment, sharding

FLAGS = (
  '--config=quickstart',
  '--mode=train',
  '--config.data.image_size=16',
  '--config.model.base_channels=16',
  '--config.model.channel_mults=(1,)',
  '--config.model.attention_levels=()',
  '--config.train.batch_size=2',
  '--config.train.num_steps=400',
  '--config.train.warmup_steps=1',
  '--config.train.decay_steps=1',
  '--config.train.log_every=10',
  '--config.train.checkpoint_every=10',
  '--config.eval.during_training=0',
)


def start(workdir: pathlib.Path, count: int) -> list[subprocess.Popen]:
  """Starts the processes of a run."""
  group = []
  if count > 1:
    with socket.socket() as probe:
      probe.bind(('localhost', 0))
      port = probe.getsockname()[1]
    group = [f'--coordinator=localhost:{port}', f'--num_processes={count}']
  return [
    subprocess.Popen(
      [
        *(sys.executable, '-m', 'bitseg_jax.main', f'--workdir={workdir}'),
        *(*FLAGS, *group, *([f'--process_id={i}'] if group else [])),
      ],
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(count)
  ]


def wait(running: list[subprocess.Popen]) -> list[int]:
  """Waits for all and returns their exit codes."""
  for process in running:
    process.communicate(timeout=300)
  return [process.returncode for process in running]


def state_of(workdir: pathlib.Path):
  """All that the newest step holds, as numpy arrays."""
  config = checkpoint.read_config(workdir)
  parts = experiment.build(config)
  _, optimizer = experiment.make_optimizer(config.train)
  _, abstract = experiment.make_state(parts, optimizer, sharding.make_mesh())
  with checkpoint.open_manager(workdir) as manager:
    return jax.tree.map(
      np.asarray, checkpoint.restore_newest(manager, abstract)
    )


def campaign(
  folder: pathlib.Path, count: int, kills: int, rng: random.Random
) -> tuple[bool, int, float]:
  """Kills a run; returns (same as never killed, kills that hit, seconds)."""
  began = time.monotonic()
  whole, killed = folder / f'whole{count}', folder / f'killed{count}'
  assert wait(start(whole, count)) == [0] * count
  alive = time.monotonic() - began
  hit = 0
  for _ in tqdm(range(kills), desc=f'{count} processes', unit='kill'):
    running = start(killed, count)
    time.sleep(rng.uniform(0, 1.2 * alive))
    victims = rng.sample(running, rng.randint(1, count))
    hit += any(process.poll() is None for process in victims)
    for process in victims:
      process.kill()
    wait(running)  # partners end by themselves
  codes = wait(start(killed, count))
  assert codes == [0] * count, codes
  pairs = zip(
    jax.tree.leaves(state_of(whole)),
    jax.tree.leaves(state_of(killed)),
    strict=True,
  )
  same = all(np.array_equal(a, b) for a, b in pairs)
  return same, hit, time.monotonic() - began


def main() -> int:
  """Prints a table; the exit code is 1 if a run came out different."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--count', type=int, default=50)
  parser.add_argument('--seed', type=int, default=0)
  asked = parser.parse_args()
  rng, rows = random.Random(asked.seed), []
  with tempfile.TemporaryDirectory() as scratch:
    for count in (1, 2):
      rows.append(
        (count, *campaign(pathlib.Path(scratch), count, asked.count // 2, rng))
      )
  print(
    f'{"processes":<12}{"kills":>8}{"while running":>16}{"bit for bit":>14}'
  )
  for count, same, hit, seconds in rows:
    print(
      f'{count:<12}{asked.count // 2:>8}{hit:>16}{"yes" if same else "NO":>14}'
      f'   {seconds:.0f} s'
    )
  return int(not all(same for _, same, _, _ in rows))


if __name__ == '__main__':
  sys.exit(main())
