"""No recorded value is left unchecked: a wrong one makes its test fail.

Each test that takes a recorded file runs again with one value of one array
changed, for every array of the file.
"""

import collections
import importlib
import inspect
import itertools

import numpy as np
import pytest

# Where the values of each group of golden.npz are compared, and their number.
MODULES = {
  'schedule': ('test_schedule', 1 + 12),  # t
  'weights': ('test_schedule', 1 + 16),  # t
  'predict': ('test_diffusion', 3 * 8),
  'ddpm': ('test_sampler', 12 * 4),
  'ddim': ('test_sampler', 12),
  'bits': ('test_codec', 4 * 5),
  'palette': ('test_palette', 12),
  'assign': ('test_palette', 6 * 2),
  'metrics': ('metrics.test_regions', 8 * 5 - 1),  # case 0 has no IoU
}


# One entity, and one segment: the ARI is 1 whatever is masked.
INDIFFERENT = {'metrics/0/mask'}


class Noted(collections.abc.Mapping):
  """Recorded values that note which of them are read."""

  def __init__(self, values):
    self.values_, self.read = values, set()

  def __getitem__(self, name):
    self.read.add(name)
    return self.values_[name]

  def __iter__(self):
    return iter(self.values_)

  def __len__(self):
    return len(self.values_)


def golden_tests(module):
  """(test, arguments) of each test of a module that takes golden values."""
  module = importlib.import_module(f'tests.{module}')
  for name, test in inspect.getmembers(module, inspect.isfunction):
    if not name.startswith('test_golden'):
      continue
    marks = [m.args for m in getattr(test, 'pytestmark', ())]
    for values in itertools.product(*(choices for _, choices in marks)):
      yield test, dict(zip((names for names, _ in marks), values, strict=True))


def changed(array, index):
  """A copy of an array with one value changed by more than any tolerance."""
  array = np.array(array)
  flat = array.reshape(-1)
  value = flat[index % flat.size]
  if array.dtype == bool:
    flat[index % flat.size] = not value
  elif np.issubdtype(array.dtype, np.integer):
    flat[index % flat.size] = value + 1
  else:
    flat[index % flat.size] = value + 0.2 * max(abs(value), 0.5)
  return array


def readers_of(golden, module):
  """The tests that read each array, by its name; they must pass."""
  readers = collections.defaultdict(list)
  for test, arguments in golden_tests(module):
    noted = Noted(golden)
    test(noted, **arguments)
    for name in noted.read:
      readers[name].append((test, arguments))
  return readers


def fails(tests, values):
  for test, arguments in tests:
    try:
      test(values, **arguments)
    except AssertionError:
      return True
  return False


def test_every_recorded_group_has_its_tests(golden):
  groups = collections.Counter(name.split('/')[0] for name in golden)
  assert groups == {group: count for group, (_, count) in MODULES.items()}


@pytest.mark.parametrize('module', sorted({m for m, _ in MODULES.values()}))
def test_every_wrong_value_makes_a_test_fail(golden, module):
  readers = readers_of(golden, module)
  assert set(readers) == {
    name for name in golden if MODULES[name.split('/')[0]][0] == module
  }
  for name, tests in readers.items():
    array = golden[name]
    # Some values do not count: where clipping hides them, for example.
    assert name in INDIFFERENT or any(
      fails(tests, {**golden, name: changed(array, index)})
      for index in range(array.size // 2, 2 * array.size, array.size // 30 + 1)
    ), f'{name}: a wrong value goes unnoticed'
