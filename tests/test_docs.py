"""What README and docs print exists: links, pictures, commands, code."""

import importlib
import pathlib
import re
import shlex
import sys

import pytest
from absl import flags

import bitseg_jax
from bitseg_jax import cli
from bitseg_jax.configs import base
from bitseg_jax.runs import schema

PAGES = [
  pathlib.Path('README.md'),
  pathlib.Path('launch/README.md'),
  *sorted(pathlib.Path('docs').rglob('*.md')),
]


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_every_link_leads_somewhere(page):
  text = page.read_text()
  links = re.findall(r'\]\(([^)\s]+)\)', text)
  for target in links + re.findall(r'src="([^"]+)"', text):
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


def test_every_picture_is_shown():
  shown = ''.join(page.read_text() for page in PAGES)
  for kind in 'png', 'jpg', 'svg':
    for picture in pathlib.Path('docs').rglob(f'*.{kind}'):
      assert picture.name in shown, picture


DOORS = {module: name for name, (module, _) in cli.COMMANDS.items()}
COMMAND = re.compile(
  r'(?:python -m bitseg_jax\.(\w+)|\bbitseg (\w+))((?: .*)?)'
)


def commands(page):
  """(door, arguments) of the bitseg commands in a page's code."""
  text = re.sub(r'\\\n\s*', ' ', page.read_text())
  fenced = re.findall(r'^```\w*\n(.*?)^```', text, re.M | re.S)
  text = re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)
  lines = re.findall(r'^    .*', text, re.M)
  spans = re.findall(r'`([^`]+)`', re.sub(r'^    .*', '', text, flags=re.M))
  lines += [line for block in fenced for line in block.splitlines()]
  for line in lines + [' '.join(span.split()) for span in spans]:
    for module, name, rest in COMMAND.findall(re.split(r' #|;', line)[0]):
      if name == 'COMMAND':  # not the name of one
        continue
      assert name in cli.COMMANDS or module in DOORS, f'{page}: {line}'
      yield module or cli.COMMANDS[name][0], arguments(rest)
    for door, flag in ('benchmark', 'BENCH'), ('main', 'DEMO'):
      for rest in re.findall(f'{flag}_FLAGS="([^"]*)"', line):
        config = {'main': ['--config=configs/quickstart.py']}  # of make demo
        yield door, config.get(door, []) + arguments(rest)
    for rest in re.findall(r'; do python -m bitseg_jax\.main (.*?);', line):
      yield 'main', arguments(rest)


def arguments(text):
  """What follows a command, with a value where one is only hinted at."""
  text = re.sub(r'[\[\]]|\.\.\.', ' ', text)  # may be left out; and so on
  text = re.sub(r'(?<==)(\w+)(\|\w+)+', r'\1', text)  # one of several
  text = text.replace('$dtype', 'float32')
  text = re.sub(r'\$\w+|(?<==)[NI]\b', '1', text)  # a number
  text = text.replace('--config=NAME', '--config=quickstart')
  text = re.sub(r'(?<==)(\([^)\s]*\))', r"'\1'", text)
  return [a for a in shlex.split(text) if a.startswith('-')]


@pytest.fixture
def define():
  """define(door) defines its flags; they are forgotten after the test."""
  before = set(flags.FLAGS)

  def forget():
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()

  def again(door):
    forget()
    importlib.import_module(f'bitseg_jax.{door}').define_flags()

  was_parsed = flags.FLAGS.is_parsed()
  yield again
  forget()
  if was_parsed:
    flags.FLAGS.mark_as_parsed()


# What docs/extending.md adds is not there; test_extending.py runs its commands.
@pytest.mark.parametrize(
  'page', [p for p in PAGES if p.name != 'extending.md'], ids=str
)
def test_every_command_parses(page, define, capsys, monkeypatch):
  """Flags exist and take these values; so do the settings of a config."""
  for door, argv in commands(page):
    if argv in ([], ['--help']):
      continue
    if page.name == 'notebook.md' and 'small' in ' '.join(argv):
      continue  # configs of the commit that the page names
    monkeypatch.setattr(sys, 'argv', ['bitseg', *argv])  # config_flags reads it
    define(door)
    shown = f'{page}: bitseg {DOORS[door]} {shlex.join(argv)}'
    known = flags.FLAGS
    required = [
      f'--{name}='
      for name in known
      if known[name].validators and 'string' in known[name].flag_type()
    ]
    # A page may show some flags only, without those that are required.
    argv = [*argv, *(f'{r}x' for r in required if r not in ' '.join(argv))]
    try:
      cli.parse_flags(['bitseg', *argv])
    except SystemExit:
      pytest.fail(f'{shown}\n{capsys.readouterr().err}')
    if 'config' in known and known.config is not None:
      schema.check_ranges(known.config)


def test_every_flag_mentioned_alone_is_one(define):
  """`--flag` in a sentence belongs to some command, or to a launcher."""
  named = set()
  for door in DOORS:
    define(door)
    named |= set(flags.FLAGS)
  launchers = ''.join(p.read_text() for p in pathlib.Path('launch').glob('*.*'))
  for page in PAGES:
    for span in re.findall(r'`(--[^`]+)`', page.read_text()):
      name = re.match(r'--([\w.]+)', span)[1]
      first, *keys = name.split('.')
      setting = base.SETTINGS
      for key in keys:
        assert first == 'config' and key in setting, f'{page}: {span}'
        setting = setting[key]
      known = first in named or first.removeprefix('no') in named
      other = f'--{first}' in launchers or first.startswith('xla_')
      assert keys or known or other, f'{page}: {span}'


def test_there_are_commands_to_check():
  assert len(list(commands(pathlib.Path('README.md')))) >= 3
  assert sum(len(list(commands(page))) for page in PAGES) > 20


@pytest.mark.parametrize('page', ['README.md', 'docs/photos.md'])
def test_python_on_pages_compiles(page):
  blocks = python_blocks(page)
  assert blocks
  for block in blocks:
    compile(block, page, 'exec')


def python_blocks(page):
  text = pathlib.Path(page).read_text()
  return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


def test_the_examples_of_the_api_page_run():
  """Those without a model: the method, and the scores."""
  segmenter, method, scores = python_blocks('docs/api/index.md')
  names = {}
  exec(method + scores, names)
  assert names['codes'].shape == (4, 32, 32)
  found = set(re.findall(r'segmenter\.(\w+)|Segmenter\.(\w+)', segmenter))
  for name in {''.join(pair) for pair in found}:
    assert hasattr(bitseg_jax.Segmenter, name), name
