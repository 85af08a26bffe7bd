"""Flips single bits of a saved model and reads it; none may pass unnoticed.

python tests/campaigns/flips.py [--flips=300] [--seed=0] [--minutes=60]

A bit of one file of a tiny checkpoint of two steps, or of a pretrained folder,
is flipped. Then the model is read as training resumes (train), as an evaluation
reads it (eval), and as predict reads a workdir, a step or a pretrained folder.
Prints how often the model was refused in one line, an older step taken with a
warning, the same values read, and, which must never happen, other values
accepted without a word or another error raised. The exit code is 1 if one of
these was found.
"""

import argparse
import collections
import logging
import pathlib
import shutil
import sys
import tempfile
import time

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from bitseg_jax.configs import quickstart
from bitseg_jax.runs import build, checkpoint, devices, train_state, weights

OUTCOMES = ('refused', 'older step', 'same values', 'ACCEPTED', 'TRACEBACK')


def make(folder):
  """A run of the steps 1 and 2, and its weights as a pretrained folder."""
  config = ConfigDict(quickstart.get_config().to_dict())
  config.data.image_size = 16
  config.model.base_channels = 16
  config.model.channel_mults = (1,)
  config.model.attention_levels = ()
  parts = build.build(config)
  shapes = jax.eval_shape(parts.init_params, jax.random.key(0))

  def draw(seed):
    rng = np.random.default_rng(seed)
    one = lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32)
    return jax.tree.map(one, shapes)

  with checkpoint.open_manager(folder / 'run') as manager:
    for step in (1, 2):
      state = train_state.create_state(draw(step), optax.adam(0.1))
      state = state.replace(step=np.int32(step), ema_params=draw(step + 10))
      manager.save(step, state, config.to_dict())
  weights.save(folder / 'pretrained', draw(12), config)


def resume(folder):
  config = checkpoint.read_config(folder / 'run')
  parts, mesh = build.build(config), devices.make_mesh()
  init = lambda key: train_state.create_state(
    parts.init_params(key), optax.adam(0.1)
  )
  abstract = devices.placed(jax.eval_shape(init, jax.random.key(0)), mesh)
  with checkpoint.open_manager(folder / 'run') as manager:
    return checkpoint.restore_newest(manager, abstract), config


def evaluate(folder):
  config = checkpoint.read_config(folder / 'run')
  abstract = devices.placed(build.abstract_params(config), devices.make_mesh())
  return [
    checkpoint.read_params(folder / 'run', abstract, kind)
    for kind in checkpoint.KINDS.values()
  ], config


def of_model(name):
  def read(folder):
    found = weights.read(folder / name)
    return found.params, found.config, found.step or 0

  return read


# By name of the reader: what it calls, and the folder whose files it reads.
READERS = {
  'train': (resume, 'run/checkpoints/2'),
  'eval': (evaluate, 'run/checkpoints/2'),
  'predict, workdir': (of_model('run'), 'run/checkpoints/2'),
  'predict, step': (
    of_model('run/checkpoints/2'),
    'run/checkpoints/2',
  ),
  'predict, pretrained': (of_model('pretrained'), 'pretrained'),
}


class Warnings(logging.Handler):
  """Counts the warnings that a user would see."""

  def __init__(self):
    super().__init__(logging.WARNING)
    self.count = 0

  def emit(self, record):
    self.count += 1


def leaves(result):
  plain = jax.tree.map(
    lambda leaf: leaf.to_dict() if isinstance(leaf, ConfigDict) else leaf,
    result,
    is_leaf=lambda leaf: isinstance(leaf, ConfigDict),
  )
  return [np.asarray(leaf) for leaf in jax.tree.leaves(plain)]


def same(ours, theirs):
  return len(ours) == len(theirs) and all(
    a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    for a, b in zip(ours, theirs, strict=True)
  )


def flip(folder, rng):
  """Flips one bit; half of the files are drawn by their size."""
  files = sorted(p for p in folder.rglob('*') if p.is_file())
  sizes = np.array([path.stat().st_size for path in files])
  chance = (sizes > 0) / np.sum(sizes > 0)
  if rng.integers(2):
    chance = sizes / sizes.sum()
  path = files[rng.choice(len(files), p=chance)]
  content = bytearray(path.read_bytes())
  place, bit = rng.integers(len(content)), rng.integers(8)
  content[place] ^= 1 << bit
  path.write_bytes(bytes(content))
  return f'{path.relative_to(folder)}, byte {place}, bit {bit}'


def outcome(read, folder, expected, warnings):
  warnings.count = 0
  try:
    found = leaves(read(folder))
  except (ValueError, OSError) as error:
    return ('refused' if '\n' not in str(error) else 'TRACEBACK'), error
  except Exception as error:
    return 'TRACEBACK', error
  if same(found, expected):
    return 'same values', None
  return ('older step' if warnings.count else 'ACCEPTED'), None


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--flips', type=int, default=300)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--minutes', type=float, default=60)
  args = parser.parse_args()
  rng, counts = np.random.default_rng(args.seed), collections.Counter()
  deadline = time.monotonic() + 60 * args.minutes
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  warnings = Warnings()
  logging.getLogger().addHandler(warnings)
  with tempfile.TemporaryDirectory() as scratch:
    kept, copy = pathlib.Path(scratch, 'kept'), pathlib.Path(scratch, 'copy')
    make(kept)
    expected = {name: leaves(read(kept)) for name, (read, _) in READERS.items()}
    for i in range(args.flips):
      if time.monotonic() > deadline:
        break
      name = list(READERS)[i % len(READERS)]
      read, where = READERS[name]
      shutil.copytree(kept, copy)
      place = flip(copy / where, rng)
      what, error = outcome(read, copy, expected[name], warnings)
      counts[name, what] += 1
      if what.isupper():
        print(f'{what} {name}: {place}: {error!r}', flush=True)
      shutil.rmtree(copy)
  print(f'seed {args.seed}, {counts.total()} flips')
  print(f'{"read by":<20}' + ''.join(f'{what:>13}' for what in OUTCOMES))
  for name in READERS:
    row = ''.join(f'{counts[name, what]:>13}' for what in OUTCOMES)
    print(f'{name:<20}{row}')
  return int(any(counts[name, w] for name in READERS for w in OUTCOMES[3:]))


if __name__ == '__main__':
  sys.exit(main())
