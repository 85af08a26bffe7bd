"""No recorded value is left unchecked."""

import collections


def test_every_recorded_array_has_its_test(golden):
  """Counts what the tests of each module say they check."""
  groups = collections.Counter(name.split('/')[0] for name in golden)
  assert groups == {
    'schedule': 1 + 12,  # t; test_schedule.py
    'weights': 1 + 16,  # t; test_schedule.py
    'predict': 3 * 8,  # test_diffusion.py
    'ddpm': 12 * 4,  # test_sampler.py
    'ddim': 12,  # test_sampler.py
    'bits': 4 * 5,  # test_codec.py
    'palette': 12,  # test_palette.py
    'assign': 6 * 2,  # test_palette.py
    'metrics': 8 * 5 - 1,  # test_metrics.py; case 0 has no IoU
  }
