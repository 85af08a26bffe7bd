"""What README and docs print exists: links, pictures, commands, code."""

import ast
import pathlib
import re
import shlex

import pytest

from bitseg_jax import cli
from bitseg_jax.configs import base

PAGES = [
  pathlib.Path('README.md'),
  pathlib.Path('launch/README.md'),
  *sorted(pathlib.Path('docs').rglob('*.md')),
]


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_every_link_leads_somewhere(page):
  text = page.read_text()
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if '://' in target or target.startswith('mailto:'):
      continue
    path, _, anchor = target.partition('#')
    other = page.parent / path if path else page
    assert other.exists(), f'{page} links to {target}'
    # The anchors of the API are those that mkdocstrings makes.
    if anchor and other.suffix == '.md' and other.parent.name != 'api':
      titles = re.findall(r'^#+ (.*)$', other.read_text(), re.MULTILINE)
      anchors = {
        re.sub(r'[^\w\- ]', '', t.lower()).replace(' ', '-') for t in titles
      }
      assert anchor in anchors, f'{page} links to {target}'


def commands(page):
  """The bitseg commands of a page, each as its arguments."""
  text = re.sub(r'\\\n\s*', ' ', page.read_text())
  for line in text.splitlines():
    found = re.match(
      r'^(?:    |\s*)(?:.*?; do )?(?:\w+=\S+ )*'
      r'(?:bitseg|python -m bitseg_jax\.(\w+)) (.*)$',
      line,
    )
    if found and (line.startswith('    ') or found[1]):
      yield found[1], shlex.split(found[2].split(' #')[0], comments=True)


def flags_of(module):
  """Names that a door's define_flags defines, from its source."""
  tree = ast.parse(pathlib.Path(f'bitseg_jax/{module}.py').read_text())
  (define,) = (
    node
    for node in tree.body
    if isinstance(node, ast.FunctionDef) and node.name == 'define_flags'
  )
  return {
    call.args[0].value
    for call in ast.walk(define)
    if isinstance(call, ast.Call)
    and call.args
    and isinstance(call.args[0], ast.Constant)
  }


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_every_flag_of_every_command_exists(page):
  modules = {name: module for name, (module, _) in cli.COMMANDS.items()}
  for module, argv in commands(page):
    if module is None:
      command, *argv = argv
      assert command in modules, f'{page}: bitseg {command}'
      module = modules[command]
    for argument in argv:
      name = re.match(r'--([\w.]+)', argument)
      if not name:
        continue
      first, *keys = name[1].split('.')
      if first == 'config' and keys:
        setting = base.SETTINGS
        for key in keys:
          assert key in setting, f'{page}: {argument}'
          setting = setting[key]
      elif first not in ('help', 'version'):
        known = flags_of(module)
        assert first in known or first.removeprefix('no') in known, (
          f'{page}: {module} {argument}'
        )


def test_there_are_commands_to_check():
  assert len(list(commands(pathlib.Path('README.md')))) >= 3
  assert sum(len(list(commands(page))) for page in PAGES) > 20


def test_code_in_readme_compiles():
  blocks = re.findall(
    r'```python\n(.*?)```', pathlib.Path('README.md').read_text(), re.DOTALL
  )
  assert blocks
  for block in blocks:
    compile(block, 'README.md', 'exec')
