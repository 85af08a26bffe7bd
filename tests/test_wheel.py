"""The wheel is whole: it trains and predicts where there is no repository."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from PIL import Image

from bitseg_jax import __version__

pytestmark = pytest.mark.slow

SHORT = (
  '--config.train.num_steps=4',
  '--config.train.warmup_steps=1',
  '--config.train.decay_steps=1',
  '--config.train.eval_every=4',
  '--config.eval.during_training=0',
  '--config.data.num_eval_scenes=4',
  '--config.eval.batch_size=4',
  '--config.eval.weights=("ema",)',
  '--config.data.image_size=16',
  '--config.model.channel_mults=(1,)',
  '--config.model.attention_levels=()',
)


def run(*command, cwd):
  done = subprocess.run(
    command,
    cwd=cwd,
    # Nothing of the repository is on the path.
    env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stdout
  return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """A wheel, built from a copy: what older builds left is not packed."""
  folder = tmp_path_factory.mktemp('wheel')
  source = folder / 'source'
  source.mkdir()
  for name in ('bitseg_jax', 'configs'):
    ignored = shutil.ignore_patterns('__pycache__')
    shutil.copytree(name, source / name, symlinks=True, ignore=ignored)
  for name in ('pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(name, source)
  pip = sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps'
  run(*pip, '-w', folder, source, cwd=folder)
  (built,) = folder.glob('*.whl')
  return built


@pytest.fixture(scope='module')
def bitseg(wheel, tmp_path_factory):
  """The command, of a venv with nothing but the wheel and its dependencies."""
  folder = tmp_path_factory.mktemp('venv')
  run(sys.executable, '-m', 'venv', '--without-pip', folder, cwd=folder)
  pip = sys.executable, '-m', 'pip', '--python', folder / 'bin/python'
  run(*pip, 'install', '-q', '--no-deps', wheel, cwd=folder)
  # By path alone: an editable install among them must not count.
  (site,) = folder.glob('lib/python*/site-packages')
  others = pathlib.Path(pytest.__file__).parents[1]
  (site / 'others.pth').write_text(
    f'import sys; sys.path.append({str(others)!r})\n'
  )
  return folder / 'bin/bitseg'


def test_it_holds_the_package_with_its_configs_and_no_more(wheel):
  names = set(zipfile.ZipFile(wheel).namelist())
  for folder, inside in (('bitseg_jax', ''), ('configs', 'bitseg_jax/')):
    files = pathlib.Path(folder).rglob('*.py')
    assert {inside + path.as_posix() for path in files} <= names
  tops = {name.split('/')[0] for name in names}
  assert tops == {'bitseg_jax', f'bitseg_jax-{__version__}.dist-info'}


def test_it_trains_and_predicts_anywhere(bitseg, tmp_path):
  assert run(bitseg, '--version', cwd=tmp_path).strip() == __version__
  where = 'import bitseg_jax.configs.sweeps as m; print(m.__file__)'
  python = bitseg.parent / 'python'
  assert run(python, '-c', where, cwd=tmp_path).startswith(
    str(bitseg.parents[1])
  )
  train = bitseg, 'train', '--config=quickstart', '--workdir=run'
  assert 'results: run/results.json' in run(*train, *SHORT, cwd=tmp_path)
  Image.new('RGB', (40, 30), 'red').save(tmp_path / 'photo.png')
  predict = bitseg, 'predict', '--checkpoint=run', '--input=photo.png'
  said = run(*predict, '--output=out', cwd=tmp_path)
  assert '1 of 1 photos segmented' in said
  assert (tmp_path / 'out/photo_labels.png').exists()
