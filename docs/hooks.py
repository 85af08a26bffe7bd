"""What mkdocs does at build time: the pages of settings and of commands."""

import importlib
from typing import Any

from absl import flags

from bitseg_jax import cli
from bitseg_jax.configs import base
from bitseg_jax.runtime import schema


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
    row = _row(f'`{key}`', f'`{default}`', allowed, meaning)
    sections.setdefault(section, []).append(row)
  return ''.join(
    f'\n## {section or "The run"}\n\n'
    '| setting | default | allowed | meaning |\n|---|---|---|---|\n'
    + ''.join(rows)
    for section, rows in sections.items()
  )


def commands() -> str:
  """Returns what each command says of itself, and a table of its flags."""
  text = ''
  for command, (module, what) in cli.COMMANDS.items():
    door = importlib.import_module(f'bitseg_jax.{module}')
    rows = (
      _row(
        f'`--{flag.name}`',
        '' if flag.default is None else _code(flag.default_as_str),
        flag.help.replace('<', '&lt;'),
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


def _code(text):
  return f'`{text}`'.replace("'", '')


def _row(*cells):
  escaped = (cell.replace('|', '\\|') for cell in cells)
  return f'| {" | ".join(escaped)} |\n'
