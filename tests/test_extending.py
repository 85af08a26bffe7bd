"""docs/extending.md, done to the letter on a copy of the package."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

PAGE = pathlib.Path('docs/extending.md').resolve()
BLOCK = re.compile(r'```(python|diff) title="(\S+)"\n(.*?)^```', re.M | re.S)
COUNTS = {'A dataset': 2, 'A network': 2, 'A sampler': 1, 'A score': 1}


def sections():
  """{title: text} of the walk-throughs."""
  parts = re.split(r'^## (.*)\n', PAGE.read_text(), flags=re.M)[1:]
  found = dict(zip(parts[::2], parts[1::2], strict=True))
  return {title: found[title] for title in COUNTS}


def apply(kind, path, block):
  """Writes a new file, or replaces the one place that a diff names."""
  if kind == 'python':
    assert not path.exists()
    path.write_text(block)
    return
  lines = block.splitlines()
  before = ''.join(f'{line[1:]}\n' for line in lines if line[:1] != '+')
  after = ''.join(f'{line[1:]}\n' for line in lines if line[:1] != '-')
  text = path.read_text()
  assert text.count(before) == 1, f'{path} has no such place:\n{before}'
  path.write_text(text.replace(before, after))


@pytest.fixture(scope='module')
def extended(tmp_path_factory):
  """A folder with a copy of the package to which all four were done."""
  folder = tmp_path_factory.mktemp('extended')
  shutil.copytree(
    'bitseg_jax',
    folder / 'bitseg_jax',
    ignore=shutil.ignore_patterns('__pycache__'),
  )
  shutil.copytree('configs', folder / 'configs')
  for text in sections().values():
    for kind, path, block in BLOCK.findall(text):
      apply(kind, folder / path, block)
  return folder


def run(folder, *argv):
  done = subprocess.run(
    [sys.executable, *argv],
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': str(folder)},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def command(title, *more):
  """The command that ends a walk-through, as arguments of python."""
  text = sections()[title].replace('\\\n', ' ')
  line = re.search(r'^    python (-m bitseg_jax.*)', text, re.M)[1]
  return [*shlex.split(line), *more]


@pytest.mark.parametrize(('title', 'count'), COUNTS.items())
def test_as_few_files_are_touched_as_promised(title, count):
  blocks = BLOCK.findall(sections()[title])
  assert len({path for _, path, _ in blocks}) == count
  row = re.search(rf'^\| \[{title.lower()}\].*', PAGE.read_text(), re.M)[0]
  assert row.split('|')[2].strip() == str(count)


def test_the_code_keeps_the_rules_of_the_house(extended):
  shutil.copy('pyproject.toml', extended)
  for verb in (['check'], ['format', '--check']):
    run(extended, '-m', 'ruff', *verb, 'bitseg_jax')


def make_voc(root):
  """Five photos in the layout of Pascal VOC, two entities each."""
  for name in ('JPEGImages', 'SegmentationObject', 'ImageSets/Segmentation'):
    (root / name).mkdir(parents=True)
  rng = np.random.default_rng(0)
  names = [f'photo_{i}' for i in range(5)]
  for name in names:
    ids = np.zeros((20, 24), np.uint8)
    ids[3:17, 2:12], ids[3:17, 13:22], ids[3:17, 12] = 1, 2, 255
    photo = rng.integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(photo).save(root / 'JPEGImages' / f'{name}.jpg')
    Image.fromarray(ids).save(root / 'SegmentationObject' / f'{name}.png')
  lists = root / 'ImageSets/Segmentation'
  (lists / 'train.txt').write_text('\n'.join(names[:3]))
  (lists / 'val.txt').write_text('\n'.join(names[3:]))


@pytest.mark.slow
def test_the_walk_throughs_work(extended):
  """The new dataset trains the new network; sampler and score evaluate it."""
  make_voc(extended / 'VOCdevkit/VOC2012')
  run(extended, *command('A dataset'))
  small = [
    '--config.data.source=tfds',
    '--config.data.dir=datasets/voc',
    '--config.data.image_size=16',
    '--config.train.batch_size=2',
    '--config.train.num_steps=2',
    '--config.train.warmup_steps=0',
    '--config.train.decay_steps=0',
    '--config.train.checkpoint_every=1',
    '--config.eval.during_training=0',
  ]
  run(extended, *command('A network', '--mode=train', *small))
  evaluation = command(
    'A sampler', '--config.eval.num_samples=2', '--config.sample.num_steps=2'
  )
  evaluation[evaluation.index('--workdir=runs/quickstart')] = (
    '--workdir=runs/plain'
  )
  assert 'purity' in run(extended, *evaluation)
  results = json.loads((extended / 'runs/plain/results.json').read_text())
  assert results['sample']['method'] == 'midpoint' and results['step'] == 2
  predicted = extended / 'predicted'
  shutil.copytree(extended / 'VOCdevkit/VOC2012/SegmentationObject', predicted)
  table = run(extended, *command('A score'))
  assert re.search(r'purity.*\n.* 1\.000', table), table
