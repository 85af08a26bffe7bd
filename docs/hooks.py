"""What mkdocs does at build time: the pages of settings and of commands."""

import importlib
import re
from typing import Any

from absl import flags

from bitseg_jax import cli
from bitseg_jax.configs import base
from bitseg_jax.runs import schema

_WHOLE = '{ .whole }'  # of style.css: not broken over lines


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
  """Puts what the code says into the pages that ask for it."""
  makers = {'settings.md': settings, 'api/commands.md': commands}
  maker = makers.get(page.file.src_uri)
  return markdown + maker() if maker else markdown


def settings() -> str:
  """Returns a heading and a table for each section of the config."""
  sections: dict[str, list[str]] = {}
  for name, default, allowed, meaning in schema.describe(base.SETTINGS):
    section, _, key = name.rpartition('.')
    if default in ('True', 'False'):
      allowed = 'True, False'
    cells = f'`{key}`{_WHOLE}', f'`{default}`{_WHOLE}', _range(allowed), meaning
    row = _row(*cells)
    sections.setdefault(section, []).append(row)
  return ''.join(
    f'\n## {section or "The run"}\n\n'
    '| setting | default | allowed | meaning |\n|---|---|---|---|\n'
    + ''.join(rows)
    for section, rows in sections.items()
  )


def _range(allowed):
  """The range in words that do not break: '>= 1, <= 8' becomes '1 to 8'."""
  numbers = re.fullmatch(r'>= (\S+), <= (\S+)', allowed)
  if numbers:
    allowed = ' to '.join(numbers.groups())
  allowed = re.sub(r'^> (\S+), <= ', r'over \1, up to ', allowed)
  return (
    re.sub(r'\d{4,}(\.0)?', lambda n: f'{int(float(n[0])):,}', allowed) or 'any'
  )


def commands() -> str:
  """Returns what each command says of itself, and a table of its flags."""
  text = ''
  for command, (module, what) in cli.COMMANDS.items():
    door = importlib.import_module(f'bitseg_jax.{module}')
    rows = (
      _row(
        f'`--{flag.name}`{_WHOLE}',
        '' if flag.default is None else f'`{_default(flag)}`',
        _meaning(flag),
      )
      for flag in _flags_of(door)
    )
    text += (
      f'\n## bitseg {command}\n\n`python -m bitseg_jax.{module}`: {what}.\n\n'
      f'```text\n{door.__doc__.strip()}\n```\n\n'
      '| flag | default | meaning |\n|---|---|---|\n' + ''.join(rows)
    )
  return text


def _flags_of(door):
  """The flags that a command defines; none of them stays defined."""
  before = set(flags.FLAGS)
  door.define_flags()
  own = sorted(set(flags.FLAGS) - before)
  found = [flags.FLAGS[name] for name in own]
  for name in own:
    delattr(flags.FLAGS, name)
  return found


def _default(flag):
  return flag.default_as_str.strip("'")  # absl puts all of them in quotes


def _meaning(flag):
  """The help of a flag; absl begins that of an enum with <its|values>."""
  choices = getattr(flag.parser, 'enum_values', None)
  text = flag.help.removeprefix(f'<{"|".join(choices or ())}>: ')
  return f'{text} One of {", ".join(choices)}.' if choices else text


def _row(*cells):
  return (
    f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |\n'
  )
