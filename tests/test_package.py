"""The package itself: a map that is true, names that load when used."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import bitseg_jax

PACKAGE = pathlib.Path('bitseg_jax')


def run(code):
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.strip()


def test_importing_the_package_alone_does_not_import_jax():
  loaded = run(
    'import bitseg_jax, sys; bitseg_jax.IGNORE_ID, bitseg_jax.__version__; '
    "dir(bitseg_jax); print('jax' in sys.modules, 'numpy' in sys.modules)"
  )
  assert loaded == 'False False'


def test_the_segmenter_is_loaded_when_it_is_first_used():
  from bitseg_jax.app.segmenter import Segmenter

  assert bitseg_jax.Segmenter is Segmenter
  assert 'Segmenter' in dir(bitseg_jax)


def test_what_does_not_exist_is_an_attribute_error():
  with pytest.raises(AttributeError, match="no attribute 'segmenter'"):
    _ = bitseg_jax.segmenter


def test_the_version_is_said_once():
  project = tomllib.loads(pathlib.Path('pyproject.toml').read_text())
  assert 'version' in project['project']['dynamic']
  said = project['tool']['setuptools']['dynamic']['version']
  assert said == {'attr': 'bitseg_jax.__version__'}
  assert re.fullmatch(r'\d+\.\d+\.\d+', bitseg_jax.__version__)


def test_the_map_names_every_room_and_file_of_the_method():
  page = pathlib.Path('docs/contributing.md').read_text()
  table = page[page.index('| room in') : page.index('| `main.py`')]
  # The first cell of each row.
  cells = re.findall(r'^\| (`.*?) \|', table, re.M)
  named = set(re.findall(r'`(\w+)(?:/|\.py)`', ' '.join(cells)))
  rooms = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
  method = {'schedule', 'codec', 'palette', 'diffusion', 'sampler'}
  assert named == (rooms - {'configs'}) | method


def test_make_clean_leaves_the_runs():
  """They are hours of work."""
  makefile = pathlib.Path('Makefile').read_text()
  (recipe,) = re.findall('^clean:\n((?:\t.*\n)+)', makefile, re.M)
  assert recipe.startswith('\trm -rf ')
  assert not re.search('runs|WORKDIR|datasets', recipe)


# As an installation without the extra [train] looks.
_WITHOUT_TRAIN = """
import importlib.abc, runpy, sys, tomllib

project = tomllib.load(open('pyproject.toml', 'rb'))['project']
extra = project['optional-dependencies']['train']
missing = {name.split('>')[0].replace('-', '_') for name in extra}

class Missing(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in missing:
      raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Missing())
"""


def test_what_segments_photos_needs_nothing_of_the_training():
  code = 'import bitseg_jax.predict, bitseg_jax.app.segmenter, bitseg_jax.demo'
  run(_WITHOUT_TRAIN + code)


@pytest.mark.parametrize(
  'command',
  [
    'prepare --dataset=folder --source=x --output=xy',
    'baselines --data=x --split=val',
    'main --config=quickstart --workdir=x',
  ],
)
def test_what_trains_says_what_to_install(command, tmp_path):
  name, *flags = command.replace('=x', f'={tmp_path}/x').split()
  code = f'sys.argv = {["", *flags]}'
  code += f"; runpy.run_module('bitseg_jax.{name}', run_name='__main__')"
  done = subprocess.run(
    [sys.executable, '-c', f'{_WITHOUT_TRAIN}{code}'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1, done.stderr
  assert 'Traceback' not in done.stderr
  line = done.stderr.splitlines()[-1]
  assert line.endswith("is not installed; pip install -e '.[train]' adds it")
