"""Flipped bits in checkpoints: none may be taken for what was saved.

python tests/campaigns/flips.py [--count=300] [--seed=0]

A tiny run has two steps. In a copy of it one bit of one file of the newer step
is flipped, and then the run is resumed, evaluated or used as each restores it.
Either the older step is taken, with a warning, or it ends in one line.
"""

import argparse
import collections
import logging
import pathlib
import random
import shutil
import sys
import tempfile

import jax
import numpy as np

from bitseg_jax.configs import quickstart
from bitseg_jax.runtime import checkpoint, experiment, sharding
from bitseg_jax.training import train


def tiny_config():
  """The quickest model there is, saved at each of two steps."""
  config = quickstart.get_config()
  config.data.image_size = 16
  config.model.base_channels = 16
  config.model.channel_mults = (1,)
  config.model.attention_levels = ()
  config.train.update(num_steps=2, warmup_steps=1, decay_steps=1)
  config.train.update(batch_size=jax.device_count(), checkpoint_every=1)
  config.eval.during_training = 0
  return config


def choose(step: pathlib.Path, rng: random.Random) -> tuple[str, int, int]:
  """Chooses a file of a step, a byte and a bit."""
  files = sorted(p for p in step.rglob('*') if p.is_file() and p.stat().st_size)
  path = rng.choice(files)
  byte = rng.randrange(path.stat().st_size)
  return str(path.relative_to(step)), byte, rng.randrange(8)


def flip(step: pathlib.Path, name: str, byte: int, bit: int) -> None:
  """Flips one bit of one file."""
  data = bytearray((step / name).read_bytes())
  data[byte] ^= 1 << bit
  (step / name).write_bytes(data)


class Restored:
  """What each way of restoring gives of the good run, and of a bad one."""

  def __init__(self, config):
    self._config = config
    mesh = sharding.make_mesh()
    parts = experiment.build(config)
    _, optimizer = experiment.make_optimizer(config.train)
    _, self._state = experiment.make_state(parts, optimizer, mesh)
    self._params = experiment.abstract_params(parts, mesh)

  def resume(self, workdir):
    with checkpoint.open_manager(workdir) as manager:
      state = checkpoint.restore_newest(manager, self._state)
    return int(state.step), jax.tree.map(np.asarray, state.opt_state)

  def evaluate(self, workdir):
    return checkpoint.read_params(workdir, self._params)

  def configure(self, workdir):
    return 2, checkpoint.read_config(workdir).to_dict()


def same(a, b) -> bool:
  """Whether two trees hold the same values."""
  equal = lambda x, y: np.array_equal(np.asarray(x), np.asarray(y))
  return bool(jax.tree.all(jax.tree.map(equal, a, b)))


def main() -> int:
  """Prints a table; the exit code is 1 if a flipped bit was accepted."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--count', type=int, default=300)
  parser.add_argument('--seed', type=int, default=0)
  asked = parser.parse_args()
  rng, table = random.Random(asked.seed), {}
  logging.disable(logging.CRITICAL)  # a warning each
  with tempfile.TemporaryDirectory() as scratch:
    good, bad = pathlib.Path(scratch, 'good'), pathlib.Path(scratch, 'bad')
    train.train(tiny_config(), good)
    restored = Restored(tiny_config())
    ways = restored.resume, restored.evaluate, restored.configure
    expected = {way.__name__: way(good) for way in ways}
    for _ in range(asked.count):
      where = choose(good / 'checkpoints/2', rng)
      for way in ways:
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)
        flip(bad / 'checkpoints/2', *where)
        name = way.__name__
        row = table.setdefault(name, collections.Counter())
        try:
          step, values = way(bad)
        except (OSError, ValueError):
          row['refused'] += 1
          continue
        wanted_step, wanted = expected[name]
        if step == wanted_step and not same(values, wanted):
          row['accepted'] += 1
          print(f'accepted by {name}: {where}')
        else:
          row[
            'older step' if step != wanted_step else 'not in what it read'
          ] += 1
  columns = 'older step', 'refused', 'not in what it read', 'accepted'
  print(f'{"":<12}' + ''.join(f'{c:>21}' for c in columns))
  for name, row in table.items():
    print(f'{name:<12}' + ''.join(f'{row[c]:>21}' for c in columns))
  return int(any(row['accepted'] for row in table.values()))


if __name__ == '__main__':
  sys.exit(main())
