"""Calls commands with flags, as their users do, in this process."""

from types import ModuleType
from typing import Any

from absl import flags
from absl.testing import flagsaver

from bitseg_jax import cli


def call(door: ModuleType, **given: Any) -> int:
  """Returns the exit code of a command.

  Args:
    door: its module.
    given: values by flag; several of a list, None of a flag that is left out.
  """
  argv = [door.__name__]
  for name, value in given.items():
    for one in value if isinstance(value, list) else [value]:
      argv += [f'--{name}={one}'] * (one is not None)
  with flagsaver.flagsaver():  # forgets what is defined within
    door.define_flags()
    flags.FLAGS(argv)
    return cli.call(door.main)
