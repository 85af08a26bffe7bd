"""Shared by all commands: flags, configs found by name, errors in one line."""

import contextlib
import importlib
import json
import logging
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from bitseg_jax import interrupts

# Set before the commands import what they need: with an older jaxlib, grain
# warns while it is imported.
absl_logging.set_verbosity(absl_logging.ERROR)

# The module and the summary of each command.
COMMANDS = {
  'train': ('main', 'train a model and evaluate it'),
  'prepare': ('prepare', 'make a dataset of photos and annotations'),
  'predict': ('predict', 'segment photos with a trained model'),
  'demo': ('demo', 'segment photos on a page in the browser'),
  'score': ('score', 'score the predictions of any method'),
  'clicks': ('clicks', 'measure how much clicks improve segmentations'),
  'baselines': ('baselines', 'score simple segmenters on a dataset'),
  'sweep': ('sweep', 'run an experiment of the paper'),
  'benchmark': ('benchmark', 'measure the speed of each part'),
  'convert': ('convert', 'exchange weights with the official code'),
}


def run(
  define_flags: Callable[[], None], main: Callable[[], int | None]
) -> NoReturn:
  """Runs a command and ends the program with its exit code.

  Args:
    define_flags: defines the absl flags of the command.
    main: does the work after the flags are parsed and returns the exit code;
      None counts as 0. Errors that a user can cause end in one line and code 1,
      Ctrl-C with 130, SIGTERM with 143.
  """
  interrupts.install()
  define_flags()

  def work(argv):
    code = call(lambda: _checked(argv, main))
    interrupts.settle(code)
    sys.exit(code)

  app.run(work, None, parse_flags)


def define_plot_format() -> None:
  """Defines --format, for commands that draw plots."""
  from bitseg_jax.evaluation import (
    pictures,
  )  # brings JAX, which is slow to import

  formats = pictures.PLOT_FORMATS
  flags.DEFINE_enum('format', formats[0], formats, 'File format of the plots.')


def define_shard() -> None:
  """Defines --shard, for commands whose work several jobs may share.

  Each job of an array does its part. The same command without --shard then
  finds what the jobs did, does what is missing, and joins it all.
  """
  flags.DEFINE_string(
    'shard',
    '',
    'I/N, such as 0/4: do part I of N, counted from 0, for N jobs at once. '
    'The same command without it then joins the parts.',
  )


def shard() -> tuple[int, int] | None:
  """Returns (I, N) of --shard, None where it is not given.

  Raises:
    ValueError: if it is not I/N with I from 0 to N - 1.
  """
  text = flags.FLAGS.shard
  if not text:
    return None
  if re.fullmatch('[0-9]{1,6}/[0-9]{1,6}', text):
    index, count = map(int, text.split('/'))
    if index < count:
      return index, count
  raise ValueError(
    f'--shard={text}: give I/N, such as 0/4, 1/4, 2/4 and 3/4 for four jobs'
  )


def call(main: Callable[[], int | None]) -> int:
  """Calls main and prints an error that a user can cause as the last line.

  Returns:
    The exit code. With BITSEG_TRACEBACK set, errors are raised instead.
  """
  # TFDS and orbax log every step; ours are the root logger's.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.basicConfig(level=logging.WARNING, format='%(message)s', force=True)
  # Of a step that cannot be saved it would tell every array, after our line.
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  if hasattr(sys.stdout, 'reconfigure'):
    # File names may hold bytes that are no text.
    sys.stdout.reconfigure(errors='backslashreplace')
  try:
    return main() or 0
  except (ValueError, OSError, ImportError, ArithmeticError) as error:
    if os.environ.get('BITSEG_TRACEBACK'):
      raise
    return say(error)
  except (MemoryError, RuntimeError) as error:
    # XLA's own error is a RuntimeError, of which no other is the user's.
    full = isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error)
    if not full or os.environ.get('BITSEG_TRACEBACK'):
      raise
    return say(f'out of memory; ask for less at once ({_message(error)[:200]})')
  except KeyboardInterrupt:
    reason, code = interrupts.outcome()
    say(reason)
    return code


def say(error: Exception | str) -> int:
  """Prints the reason for a failure in one line and returns the exit code 1."""
  line = ' '.join(_message(error).split())
  _end_progress()
  with contextlib.suppress(OSError):  # nobody may read it any more
    sys.stdout.flush()  # in a file, what was printed before stands before
  print(f'error: {line}', file=sys.stderr, flush=True)
  return 1


def _end_progress():
  """Ends progress bars, which else stand before the line and after it."""
  if 'tqdm' in sys.modules:
    from tqdm import tqdm

    for bar in list(getattr(tqdm, '_instances', ())):
      bar.close()


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags; a wrong one ends the program with one line."""
  if '--help' in argv or '-h' in argv or '-help' in argv:
    sys.exit(_help())
  try:
    argv = [_found_config(argument) for argument in _joined(argv)]
    return flags.FLAGS(_given_last(argv))
  except Exception as error:  # a config is a program, and may raise anything
    sys.exit(say(_with_flag(error, argv)))


def _joined(argv):
  """Writes settings given as `--config.x VALUE` as --config.x=VALUE."""
  joined, rest = [], list(argv)
  while rest:
    argument = rest.pop(0)
    if re.match(r'--?config\b', argument):
      argument = '--' + argument.lstrip('-')
      if '=' not in argument and rest and not rest[0].startswith('--'):
        argument += f'={rest.pop(0)}'
    joined.append(argument)
  return joined


def _given_last(argv):
  """Drops settings that are given again: ml_collections would join tuples."""
  last = {argument.partition('=')[0]: i for i, argument in enumerate(argv)}
  return [
    argument
    for i, argument in enumerate(argv)
    if not re.match('--?config[.].*=', argument)
    or last[argument.partition('=')[0]] == i
  ]


def _with_flag(error, argv):
  """The error, with the flag at fault where its message names only a key."""
  text = _message(error)
  for argument in argv:
    name = argument.partition('=')[0]
    if name.startswith('--config.') and any(
      f"'{key}'" in text for key in name.split('.')[1:]
    ):
      return f'{argument}: there is no such setting; {text}'
  return text


def check_output(path: str, key: str) -> None:
  """Checks the JSON file that results are to be written to, before they are.

  Results may replace such results, but nothing else.

  Args:
    path: the file; '' where none is to be written.
    key: what such results have.

  Raises:
    OSError: in one line, if they cannot be written there.
  """
  file = pathlib.Path(path)
  if not file.parent.is_dir():
    raise FileNotFoundError(f'{path}: its directory does not exist')
  if not path:
    return
  if file.is_symlink():
    raise FileExistsError(f'--output={path} is a link; give another file')
  if file.is_dir():
    raise IsADirectoryError(f'--output={path} is a folder; give a file in it')
  if file.exists():
    try:
      known = file.is_file() and key in json.loads(file.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
      known = False
    if not known:
      raise FileExistsError(
        f'--output={path} holds something else than such results; give another '
        'file'
      )


def _message(error):
  """What an error says; KeyError, printed, would put it in quotes."""
  if isinstance(error, Exception) and len(error.args) == 1:
    return _message(error.args[0])
  return str(error) or type(error).__name__


def _checked(argv, main):
  if len(argv) > 1:
    raise ValueError(
      f'{argv[1]} is no flag; flags begin with --, and patterns are quoted'
    )
  for flag in map(flags.FLAGS.__getitem__, flags.FLAGS):
    if flag.present and flag.default != '' and flag.value in ('', [], ['']):
      raise ValueError(f'--{flag.name} is empty; give a value or leave it out')
  config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else None
  if config is not None and not isinstance(config, ConfigDict):
    raise ValueError(
      f'--config gives a {type(config).__name__}; get_config must return a '
      'ConfigDict, such as that of configs/base.py with changes'
    )
  return main()


def _help():
  """Prints the docstring of the command and its flags, returns exit code 0."""
  main = sys.modules['__main__']
  print(main.__doc__)
  own = {'config'} if 'config' in flags.FLAGS else set()
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith('bitseg_jax') or module == sys.argv[0]:
      own |= {flag.name for flag in defined}
  for name in sorted(own):
    flag = flags.FLAGS[name]
    default = '' if flag.default is None else f' [{flag.default_as_str}]'
    print(f'  --{name}: {flag.help}{default}')
  return 0


def _found_config(argument):
  """Turns --config=NAME, or configs/NAME.py, into the packaged config's path.

  Raises:
    ValueError: if there is neither such a file nor such a config.
  """
  name, equals, value = argument.partition('=')
  if name.lstrip('-') != 'config' or not equals:
    return argument
  path, _, rest = value.partition(':')  # FILE:ARGUMENT of get_config
  if pathlib.Path(path).is_file():
    return argument
  folder = config_folder()
  packaged = folder / f'{pathlib.Path(path).stem}.py'
  named = str(pathlib.Path(path).parent) in ('.', 'configs')
  if not named or not packaged.is_file():
    known = sorted(f.stem for f in folder.glob('[a-z]*.py'))
    raise ValueError(
      f'--config={value}: no such file; the configs in the package are '
      + ', '.join(known)
    )
  return f'{name}={packaged}' + (f':{rest}' if rest else '')


def config_folder() -> pathlib.Path:
  """Returns the folder of the configs that come with the package."""
  return pathlib.Path(
    importlib.import_module('bitseg_jax.configs').__file__
  ).parent
