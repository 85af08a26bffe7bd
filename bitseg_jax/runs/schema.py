"""Defines what a setting may be, and checks a config against its settings.

configs/base.py lists every setting once, as a Setting. `check` compares a
config with that list before anything is compiled; runs/checks.py then
checks how the settings fit together.
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Setting(NamedTuple):
  """One setting of the config.

  Attributes:
    default: its value if none is given, and also its type. A float setting
      also accepts an int; a tuple may hold any number of elements of type `of`.
    meaning: what it does, for people, with its unit.
    least: smallest value allowed; None = no bound.
    most: largest value allowed; None = no bound.
    above: value that it must exceed; None = no bound.
    choices: values allowed; None = all of the type.
    of: type of the elements of a tuple, to which bounds and choices apply.
    length: number of elements of a tuple; None = any number.
  """

  default: Any
  meaning: str
  least: float | None = None
  most: float | None = None
  above: float | None = None
  choices: Sequence[Any] | None = None
  of: type | None = None
  length: int | None = None

  @property
  def bounds(self) -> tuple[float | None, float | None]:
    """The smallest and the largest value allowed."""
    return self.least, self.most


Settings = Mapping[str, 'Setting | Settings']


def to_config(settings: Settings) -> ConfigDict:
  """Makes a locked config that holds the default of every setting."""
  config = ConfigDict()
  for name, setting in settings.items():
    config[name] = (
      setting.default if isinstance(setting, Setting) else to_config(setting)
    )
  return config.lock()


def check(config: ConfigDict, settings: Settings, prefix: str = '') -> None:
  """Checks the type and the range of every value of a config.

  Args:
    config: the config, with nested sections.
    settings: all settings, nested likewise.
    prefix: name of the section, for the error message.

  Raises:
    ValueError: one line with the setting, its value and its allowed values.
  """
  unknown = sorted(map(str, set(config) - set(settings)))
  missing = sorted(set(settings) - set(config))
  if unknown or missing:
    raise ValueError(
      f'config.{prefix}{(unknown or missing)[0]} is '
      + ('no setting; configs/base.py lists them' if unknown else 'missing')
    )
  for name, setting in settings.items():
    value = config[name]
    if isinstance(setting, Setting):
      check_value(f'config.{prefix}{name}', value, setting)
    elif isinstance(value, (ConfigDict, dict)):
      check(value, setting, f'{prefix}{name}.')
    else:
      raise ValueError(
        f'config.{prefix}{name} is {_shown(value)}, not a section'
      )


def check_value(name: str, value: Any, setting: Setting) -> None:
  """Checks the type and the range of one value; see `check`."""
  if setting.of is None:
    _check_one(name, value, type(setting.default), setting)
    return
  if not isinstance(value, (tuple, list)):
    raise ValueError(f'{name} is {_shown(value)}; give a tuple, such as (1, 2)')
  if setting.length not in (None, len(value)):
    raise ValueError(
      f'{name} is {tuple(value)!r}; give {setting.length} values'
    )
  for element in value:
    _check_one(name, element, setting.of, setting, f' in {_shown(value)}')


def _check_one(name, value, kind, setting, where=''):
  """Checks one value, or one element of a tuple."""
  wrong = f'{name} is {_shown(value)}{where}; it must be '
  accepted = {float: numbers.Real, int: numbers.Integral}.get(kind, kind)
  # In Python True is an int, but it is no valid number here.
  if not isinstance(value, accepted) or (
    isinstance(value, bool) and kind is not bool
  ):
    raise ValueError(wrong + _KINDS[kind])
  if setting.choices is not None and value not in setting.choices:
    raise ValueError(wrong + f'one of {", ".join(map(str, setting.choices))}')
  if kind not in (int, float):
    return
  # Not math.isfinite, which cannot take every whole number.
  if not -math.inf < value < math.inf:
    raise ValueError(wrong + 'finite')
  for bound, holds, words in (
    (setting.least, lambda b: value >= b, 'at least'),
    (setting.most, lambda b: value <= b, 'at most'),
    (setting.above, lambda b: value > b, 'over'),
  ):
    if bound is not None and not holds(bound):
      raise ValueError(wrong + f'{words} {bound}')


def _shown(value):
  """A value in one line, as people would write it."""
  value = tuple(value) if isinstance(value, list) else value
  return ' '.join(repr(value).split())


_KINDS = {
  bool: 'True or False',
  int: 'a whole number',
  float: 'a number',
  str: 'text',
}


def describe(settings: Settings, prefix: str = '') -> list[tuple[str, ...]]:
  """Lists all settings as text, for documentation.

  Returns:
    Rows (name, default, range, meaning); names join sections with dots.
  """
  rows = []
  for name, setting in settings.items():
    if isinstance(setting, Setting):
      rows.append(
        (prefix + name, repr(setting.default), _range(setting), setting.meaning)
      )
    else:
      rows += describe(setting, f'{prefix}{name}.')
  return rows


def _range(setting):
  if setting.choices is not None:
    return ', '.join(map(str, setting.choices))
  parts = [
    f'{sign} {bound}'
    for sign, bound in (
      ('>', setting.above),
      ('>=', setting.least),
      ('<=', setting.most),
    )
    if bound is not None
  ]
  return ', '.join(parts)
