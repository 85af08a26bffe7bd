"""With any other value in place of a recorded one, a test fails."""

import collections
import importlib.util
import pathlib

import pytest

HERE = pathlib.Path(__file__).parent
# Group of recorded arrays: (how many there are, the file and test that compare
# them, and that test's argument for the array of a name).
GROUPS = {
  'schedule': (1 + 12, 'test_schedule', 'test_golden_schedules', None),
  'weights': (1 + 16, 'test_schedule', 'test_golden_weights', None),
  'predict': (3 * 8, 'test_diffusion', 'test_golden_predictions', str),
  'ddpm': (12 * 4, 'test_sampler', 'test_golden_steps', None),
  'ddim': (12, 'test_sampler', 'test_golden_steps', None),
  'bits': (4 * 5, 'test_codec', 'test_golden_bits', int),
  'palette': (12, 'test_palette', 'test_golden_palettes', None),
  'assign': (6 * 2, 'test_palette', 'test_golden_assignments', 'neighbour'),
  'metrics': (8 * 5 - 1, 'metrics/test_regions', 'test_golden_values', None),
}


def compare(values, name):
  """Runs the test that compares the array of a name, on these values."""
  _, file, test, argument = GROUPS[name.split('/')[0]]
  spec = importlib.util.spec_from_file_location('compared', HERE / f'{file}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if callable(argument):  # the test is parametrized by a part of the name
    argument = argument(name.split('/')[1])
  getattr(module, test)(values, *([] if argument is None else [argument]))


def wrong(array):
  """The array with other values of the same kind."""
  if array.dtype.kind == 'f':
    return 1.02 * array + 0.02
  if array.dtype.kind == 'b':
    return ~array
  changed = array.copy()
  changed.flat[: changed.size // 2] += 1
  return changed


def test_every_group_of_recorded_arrays_has_its_test(golden):
  counts = collections.Counter(name.split('/')[0] for name in golden)
  assert counts == {group: count for group, (count, *_) in GROUPS.items()}


def assert_compared(golden, names):
  for name in names:
    with pytest.raises(AssertionError):
      compare(golden | {name: wrong(golden[name])}, name)


def test_another_value_fails_in_every_group(golden):
  last = {name.split('/')[0]: name for name in sorted(golden)}
  assert_compared(golden, last.values())


@pytest.mark.slow
def test_another_value_fails_anywhere(golden):
  assert_compared(golden, golden)
