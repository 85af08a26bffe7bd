"""The house rules that a machine can check: who imports whom, and how long."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path('bitseg_jax')
# From the ground up: a room imports only from its own floor and those below.
FLOORS = (
  '__init__ relabel interrupts',
  'schedule codec palette',
  'diffusion',
  'sampler',
  'models metrics',
  'data',
  'runs configs',
  'evaluation',
  'training',
  'experiments',
  'app',
  'benchmarks',
  'cli',
  'main predict prepare score sweep benchmark clicks baselines demo convert '
  '__main__',
)
METHOD = ('schedule', 'codec', 'palette', 'diffusion', 'sampler')
ONLY_ROOM = {
  'flax.linen': {'models'},
  'gradio': {'app/page/layout'},
  'orbax': {'runs/checkpoint'},
  'tensorflow_datasets': {'data/prepared'},
  'safetensors': {'runs/weights'},
  'huggingface_hub': {'runs/weights'},
  'tensorflow': set(),
  'torch': {'runs/official', 'models/encoder'},
}
FILES = sorted(PACKAGE.rglob('*.py'))
CONFIGS = sorted(pathlib.Path('configs').rglob('*.py'))


def room(path):
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def floor(name):
  floors = [i for i, rooms in enumerate(FLOORS) if name in rooms.split()]
  assert floors, f'{name} has no floor: add it to FLOORS'
  return floors[0]


def imports(path):
  """Full dotted names of what a file imports, wherever in it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize('path', FILES, ids=str)
def test_floors_import_downwards_only(path):
  for name in imports(path):
    first, *rest = name.split('.')
    if first != 'bitseg_jax' or not rest:
      continue
    target = rest[0]
    if (
      not (PACKAGE / target).exists()
      and not (PACKAGE / f'{target}.py').exists()
    ):
      target = '__init__'  # a name of the package itself
    assert floor(target) <= floor(room(path)), f'{path} imports {name}'


@pytest.mark.parametrize('path', FILES, ids=str)
def test_libraries_stay_in_their_rooms(path):
  for name in imports(path):
    for library, rooms in ONLY_ROOM.items():
      if name == library or name.startswith(library + '.'):
        place = path.relative_to(PACKAGE).with_suffix('').as_posix()
        assert any(place.startswith(r) for r in rooms), f'{path} imports {name}'


def test_measures_of_the_house():
  for path in FILES + CONFIGS:
    text = path.read_text()
    assert text.count('\n') <= 480, f'{path} has over 480 lines'
