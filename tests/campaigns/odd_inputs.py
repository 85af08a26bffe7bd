"""Odd inputs by the hundred: none may end in a traceback, or pass in silence.

python tests/campaigns/odd_inputs.py [--inputs=500] [--seed=0] [--minutes=60]

Each input is one thing made wrong, in a dataset to prepare, in predictions to
score, in photos to segment, in settings or in flags. The command gets it in a
process of its own, forked from one that has imported everything. Counted are

  traceback  a Python traceback is shown
  silent     the exit code is 0, though the command must not take it
  unclear    it fails, and its last line is not 'error: ...'
  endless    it is not done after a minute
"""

import argparse
import collections
import importlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

import numpy as np
from PIL import Image

from bitseg_jax import cli
from bitseg_jax.configs import base
from bitseg_jax.data import rle
from bitseg_jax.runtime import schema

LIMIT = 60  # seconds
NAMES = 'a', 'b', 'c'
IDS = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((8, 8))).astype(np.uint8)
Case = tuple[str, list[str], bool]  # what, command, whether it must fail


def png(pixels: np.ndarray, kind: str = 'PNG', **options) -> bytes:
  """An image file."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind, **options)
  return buffer.getvalue()


def make_folder(root: pathlib.Path) -> None:
  """Three photos with ids, one of them for validation."""
  rng = np.random.default_rng(0)
  for name in NAMES:
    photo = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    for kind, data in ('images', png(photo)), ('labels', png(IDS)):
      (root / kind).mkdir(parents=True, exist_ok=True)
      (root / kind / f'{name}.png').write_bytes(data)
  (root / 'train.txt').write_text('a\nb\n')
  (root / 'val.txt').write_text('c\n')


def spoil(path: pathlib.Path, rng: random.Random) -> str:
  """Makes a file of an image wrong in one way; returns how."""
  good = path.read_bytes()
  path.unlink()
  ways: dict[str, Callable[[], object]] = {
    'empty': path.touch,
    'cut off': lambda: path.write_bytes(good[: rng.randrange(1, 60)]),
    'random bytes': lambda: path.write_bytes(rng.randbytes(200)),
    'text': lambda: path.write_text('not an image'),
    'another size': lambda: path.write_bytes(png(IDS[:5, :7])),
    'floats': lambda: path.write_bytes(png(IDS.astype(np.float32), 'TIFF')),
    'folder': path.mkdir,
    'pipe': lambda: os.mkfifo(path),
    'loop': lambda: path.symlink_to(path.name),
    'nowhere': lambda: path.symlink_to('/nowhere/at/all'),
    'device': lambda: path.symlink_to('/dev/zero'),
    'huge': lambda: path.write_bytes(
      good[:16] + (10**6).to_bytes(4, 'big') * 2 + good[24:]
    ),
  }
  way = rng.choice(sorted(ways))
  ways[way]()
  return way


def odd(rng: random.Random) -> object:
  """A value that hardly anything expects."""
  deep = []
  for _ in range(50):
    deep = [deep]
  return rng.choice(
    [
      *(None, [], {}, -1, 0, 1.5, 2**70, 'x', '', True, 1e400, '../../x', deep),
      *(float('nan'), {'id': {}}, [[]], '\x00', 'ü' * 400),
    ]
  )


def odd_dataset(root: pathlib.Path, rng: random.Random) -> Case:
  """One file of a folder to prepare is wrong."""
  make_folder(root / 'in')
  kind = rng.choice(['images', 'labels'])
  how = spoil(root / f'in/{kind}/{rng.choice(NAMES)}.png', rng)
  command = ['prepare', '--dataset=folder', f'--source={root}/in', '--strict']
  return f'{kind}: {how}', [*command, f'--output={root}/out'], True


def odd_json(root: pathlib.Path, rng: random.Random) -> Case:
  """One value of a COCO panoptic JSON is odd; some may be harmless."""
  make_folder(root / 'in')
  (root / 'in/labels').rename(root / 'in/panoptic_val')
  content = {
    'images': [
      {'id': i, 'file_name': f'{name}.png'} for i, name in enumerate(NAMES)
    ],
    'annotations': [
      {
        'image_id': i,
        'file_name': f'{name}.png',
        'segments_info': [{'id': k, 'iscrowd': 0} for k in range(1, 5)],
      }
      for i, name in enumerate(NAMES)
    ],
  }
  node, key, path = {'': content}, '', []
  while isinstance(node[key], dict | list) and (not path or rng.random() < 0.8):
    node = node[key]
    key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
    path.append(str(key))
  node[key] = odd(rng)
  (root / 'in/panoptic_val.json').write_text(json.dumps(content))
  command = ['prepare', '--dataset=coco_panoptic', f'--source={root}/in']
  what = f'JSON: {".".join(path)} = {node[key]!r:.30}'
  return what, [*command, '--strict', f'--output={root}/out'], False


def odd_prediction(
  root: pathlib.Path, rng: random.Random, prepared: pathlib.Path
) -> Case:
  """One prediction to score is wrong."""
  (root / 'p').mkdir()
  masks = [{'segmentation': r, 'score': 0.5} for r in rle.encode(IDS - 1)]
  kind = rng.choice(['png', 'npy', 'json', 'masks'])
  path = root / f'p/c.{kind.replace("masks", "json")}'
  if kind == 'png':
    path.write_bytes(png(IDS))
    how = spoil(path, rng)
  elif kind == 'npy':
    np.save(path, IDS.astype(np.int64))
    data = bytearray(path.read_bytes())
    how = rng.choice(['cut off', 'header', 'floats', 'objects', 'huge ids'])
    if how == 'cut off':
      path.write_bytes(data[: rng.randrange(len(data) - 8)])
    elif how == 'header':
      path.write_bytes(data.replace(b'(16, 16)', b'(99999999,9)'))
    elif how == 'huge ids':
      np.save(path, IDS.astype(np.int64) * 2**40)
    else:
      np.save(path, IDS.astype(object if how == 'objects' else float) / 2)
  elif kind == 'json':
    value = odd(rng)
    path.write_text(json.dumps(value if value != [] else None))
    how = f'{value!r:.30}'
  else:
    one = masks[rng.randrange(len(masks))]
    value = odd(rng)
    while isinstance(value, int | float) and abs(value) < 10:
      value = odd(rng)  # a score like any other
    where, key = rng.choice(
      [
        *((one, 'score'), (one, 'segmentation')),
        *((one['segmentation'], 'counts'), (one['segmentation'], 'size')),
      ]
    )
    where[key] = value
    path.write_text(json.dumps(masks))
    how = f'{key} = {value!r:.30}'
  command = ['score', f'--data={prepared}', '--split=val']
  return f'{kind}: {how}', [*command, f'--predictions={root}/p'], True


def odd_setting(root: pathlib.Path, rng: random.Random) -> Case:
  """A setting out of its range, of another type, or unknown."""
  names = [row[0] for row in schema.describe(base.SETTINGS) if row[2]]
  name = rng.choice(names)
  numbers = 'nan', 'inf', '-1e30', '1e30', str(-(10**18))
  values = [*numbers, "'x'", '(-1e9,)', 'None', '"']
  value = rng.choice(values)
  flag = rng.choice([f'--config.{name}={value}', f'--config.{name}x=1'])
  command = ['train', '--config=quickstart', f'--workdir={root}/run']
  return f'setting {flag}', [*command, flag], True


def odd_flag(root: pathlib.Path, rng: random.Random) -> Case:
  """A flag that cannot be meant."""
  flag = rng.choice(
    [
      ['predict', '--input=', '--output=x'],
      ['predict', '--input=/nowhere', '--output=x'],
      ['predict', f'--input={root}', f'--output={root}'],
      ['predict', '--input=x', '--output=x', '--num_samples=1000000000'],
      ['predict', '--input=x', '--output=x', '--guidance_weight=1e30'],
      ['predict', '--input=x', '--output=x', '--seed=99999999999'],
      ['predict', '--input=x', '--output=x', '--shard=4/4'],
      ['predict', '--input=x', '--output=x', '--shard=a/b'],
      ['prepare', '--dataset=folder', f'--source={root}', '--output=x'],
      ['prepare', '--dataset=folder', '--source=', '--output='],
      ['prepare', '--dataset=none', '--source=x', '--output=x'],
      ['prepare', '--describe', f'--output={root}'],
      ['score', '--data=x', '--split=val', '--predictions=x'],
      ['score', '--data=x', '--split=val', '--predictions=x', '--shard=0/2'],
      ['sweep', '--sweep='],
      ['sweep', '--sweep=none'],
      ['sweep', '--sweep=table3', '--seeds=a'],
      ['sweep', '--sweep=table3', '--size=none'],
      ['benchmark', '--what='],
      ['benchmark', '--what=none'],
      ['baselines', '--data=x', '--split=val'],
      ['convert', '--input=/nowhere', f'--output={root}/x'],
      ['demo', '--checkpoint=/nowhere'],
      ['train', '--config=nowhere', f'--workdir={root}/r'],
      ['train', f'--config={root}', f'--workdir={root}/r'],
      ['train', '--config=quickstart', f'--workdir={root}/r', '--mode=eval'],
      ['train', '--config=quickstart', f'--workdir={root}/r', 'word'],
      ['train', '--config=quickstart', f'--workdir={root}/r', '--unknown=1'],
    ]
  )
  return f'flags {" ".join(flag[:4])}', flag, True


def run(command: list[str], log: pathlib.Path) -> int | None:
  """The exit code of a command in a forked process; None if it takes long."""
  pid = os.fork()
  if not pid:
    os.setsid()
    with open(log, 'wb') as file:
      os.dup2(file.fileno(), 1)
      os.dup2(file.fileno(), 2)
    os.chdir(log.parent)
    sys.stdout = open(1, 'w', closefd=False)  # noqa: SIM115
    sys.stderr = open(2, 'w', closefd=False)  # noqa: SIM115
    sys.argv = ['bitseg', *command[1:]]
    code = 2
    try:
      door = cli.COMMANDS[command[0]][0]
      door = importlib.import_module(f'bitseg_jax.{door}')
      cli.run(door.define_flags, door.main)
    except SystemExit as ended:
      code = ended.code or 0
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)  # what the parent has begun is not for it to end
  end = time.monotonic() + LIMIT
  while time.monotonic() < end:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.005)
  os.killpg(pid, signal.SIGKILL)
  os.waitpid(pid, 0)
  return None


def judge(code: int | None, said: str, must_fail: bool) -> str:
  """What the table counts it as."""
  lines = said.replace('\r', '\n').strip().splitlines()
  if code is None:
    return 'endless'
  if 'Traceback (most recent call last)' in said or code not in (0, 1):
    return 'traceback'
  if not code:
    return 'silent' if must_fail else 'taken'
  return 'refused' if lines[-1].startswith('error: ') else 'unclear'


def main() -> int:
  """Prints what went wrong, and a table; the exit code is 1 if anything did."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--inputs', type=int, default=500)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--minutes', type=float, default=60)
  parser.add_argument('--verbose', action='store_true')
  asked = parser.parse_args()
  rng = random.Random(asked.seed)
  for module, _ in cli.COMMANDS.values():
    importlib.import_module(f'bitseg_jax.{module}')
  table: dict[str, collections.Counter] = {}
  with tempfile.TemporaryDirectory() as scratch:
    top = pathlib.Path(scratch)
    make_folder(top / 'good')
    prepare = ['prepare', '--dataset=folder', f'--source={top}/good']
    assert run([*prepare, f'--output={top}/prepared'], top / 'log') == 0
    makers = {
      'datasets': odd_dataset,
      'JSON': odd_json,
      'predictions': lambda r, g: odd_prediction(r, g, top / 'prepared'),
      'settings': odd_setting,
      'flags': odd_flag,
    }
    end = time.monotonic() + 60 * asked.minutes
    for i in range(asked.inputs):
      if time.monotonic() > end:
        break
      name = list(makers)[i % len(makers)]
      root = top / 'case'
      root.mkdir()
      what, command, must_fail = makers[name](root, rng)
      code = run(command, root / 'log')
      said = (root / 'log').read_text(errors='replace')
      found = judge(code, said, must_fail)
      table.setdefault(name, collections.Counter())[found] += 1
      if asked.verbose or found not in ('refused', 'taken'):
        print(f'{found}: {what}\n  {" ".join(command)}\n  {said[-300:]}')
      shutil.rmtree(root)
  return show(table)


def show(table: dict[str, collections.Counter]) -> int:
  """Prints the table; returns whether anything is wrong in it."""
  columns = 'refused', 'taken', 'traceback', 'silent', 'unclear', 'endless'
  print(f'{"":<12}' + ''.join(f'{c:>11}' for c in columns))
  for name, row in table.items():
    print(f'{name:<12}' + ''.join(f'{row[c]:>11}' for c in columns))
  return int(any(row[c] for row in table.values() for c in columns[2:]))


if __name__ == '__main__':
  sys.exit(main())
