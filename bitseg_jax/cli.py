"""Shared by all commands: flags, configs found by name, errors in one line."""

import atexit
import contextlib
import io
import json
import logging
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from bitseg_jax import interrupts

# Before the imports of the commands: with an older jaxlib, grain warns in its.
absl_logging.set_verbosity(absl_logging.ERROR)

flags.disclaim_key_flags()  # what is defined here is of the command

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
# Packages of the extra [train] that are imported when they are needed.
OF_TRAINING = 'array_record grain matplotlib tensorboardX tensorflow_datasets'
# Of the configs that come with the package.
CONFIGS = pathlib.Path(__file__).parent / 'configs'


def run(
  define_flags: Callable[[], None], main: Callable[[], int | None]
) -> NoReturn:
  """Runs a command and ends the program with its exit code.

  That is what main returns (None counts as 0); 1 after an error that a user can
  cause, which is told in one line; 130 after Ctrl-C, 143 after SIGTERM.
  """
  use_utf8()
  interrupts.install()
  open_streams()
  define_flags()
  if {'--help', '-h', '-help'} & set(sys.argv):
    print(sys.modules['__main__'].__doc__)
    print(flags.FLAGS.module_help(define_flags.__module__))
    sys.exit(0)

  def work(argv):
    code = call(lambda: _check_flags(argv) or main())
    if code:
      # Python would wait for its threads first, jax for the other processes,
      # and libraries would tell, after our line, what they could not close.
      os._exit(code)
    interrupts.ignore()  # all is done
    if interrupts.is_command():  # Python would take a second to take jax down
      atexit._run_exitfuncs()
      os._exit(0)  # all that was printed is out, line by line
    sys.exit(0)

  app.run(work, None, parse_flags)


def use_utf8() -> None:
  """Begins anew in Python's UTF-8 mode where the locale is another.

  Names of files are then the same in folders, in lists and in results.
  """
  encoding = sys.getfilesystemencoding()
  if encoding != 'utf-8' and os.environ.get('PYTHONUTF8') != '1':
    # What is printed keeps the encoding of the terminal.
    os.environ.update(PYTHONUTF8='1', PYTHONIOENCODING=encoding)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class _Stream(io.FileIO):
  """Takes what is printed, also when nobody reads it, as behind `head`."""

  def write(self, data):
    try:
      return super().write(data)
    except BrokenPipeError:
      return len(data)


def open_streams() -> None:
  """Lets a command work whose streams are closed, or are closed on the way."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # gets this number, the least that is free
  for number, name in (1, 'stdout'), (2, 'stderr'):
    raw = io.BufferedWriter(_Stream(number, 'w', closefd=False))
    encoding = getattr(getattr(sys, name), 'encoding', 'utf-8')
    # File names may hold bytes that are no text.
    errors = 'backslashreplace'
    stream = io.TextIOWrapper(raw, encoding, errors, line_buffering=True)
    setattr(sys, name, stream)


def define_split() -> None:
  """Defines --data and --split, for commands that score on a dataset."""
  string = flags.DEFINE_string
  string('data', None, 'Directory of the prepared dataset.', required=True)
  string('split', None, 'Split to score: train, val or test.', required=True)


def define_options(options: type, names: Iterable[str]) -> None:
  """Defines flags of fields of AnswerOptions: range, default and meaning."""
  define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer}
  define |= {float: flags.DEFINE_float, str: flags.DEFINE_string}
  for name in names:
    setting = options.__dataclass_fields__[name].metadata['setting']
    meaning = f'{setting.meaning[0].upper()}{setting.meaning[1:]}'
    meaning += f' ({setting.allowed}).' if setting.allowed else '.'
    define[type(setting.default)](name, getattr(options, name), meaning)


def call(main: Callable[[], int | None]) -> int:
  """Calls main, ends an error of the user in one line; returns the exit code.

  With BITSEG_TRACEBACK set, errors are raised instead.
  """
  # TFDS and orbax log every step; ours are the root logger's.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.basicConfig(level=logging.WARNING, format='%(message)s', force=True)
  # Of a step that cannot be saved it would tell every array, after our line.
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)
  sys.unraisablehook = lambda error: None
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  try:
    return main() or 0
  except KeyboardInterrupt:
    return say('interrupted; run the same command to resume', 130)
  except Exception as error:
    line = _line_for_user(error)
    if line is None or os.environ.get('BITSEG_TRACEBACK'):
      raise
    return say(line)


def _line_for_user(error):
  """The line for an error that a user can cause; None for others."""
  if 'RESOURCE_EXHAUSTED' in str(error) or isinstance(error, MemoryError):
    return f'out of memory; ask for less at once ({_message(error)[:200]})'
  asked, jax = os.environ.get('JAX_PLATFORMS'), sys.modules.get('jax')
  if asked and jax and isinstance(error, RuntimeError | AssertionError):
    try:
      jax.devices()
    except Exception as missing:
      return (
        f'JAX_PLATFORMS={asked}, but JAX finds no such device here; unset it, '
        f'or set JAX_PLATFORMS=cpu ({_message(missing)[:200]})'
      )
  missing = error.name if isinstance(error, ModuleNotFoundError) else None
  if missing in OF_TRAINING.split():
    return f"{missing} is not installed; pip install -e '.[train]' adds it"
  known = ValueError, OSError, ImportError, ArithmeticError
  return _message(error) if isinstance(error, known) else None


def say(error: Exception | str, code: int = 1) -> int:
  """Prints the reason for a failure in one line and returns the exit code."""
  line = ' '.join(_message(error).split())
  # Progress bars would else stand before the line and after it.
  bars = getattr(sys.modules.get('tqdm'), 'tqdm', None)
  for bar in list(getattr(bars, '_instances', ())):
    bar.close()
  with contextlib.suppress(OSError, ValueError):  # it may be full, or closed
    sys.stdout.flush()  # in a file, what was printed before stands before
  print(f'error: {line}', file=sys.stderr, flush=True)
  return code


def _message(error):
  """What an error says; KeyError, printed, would put it in quotes."""
  if isinstance(error, Exception) and len(error.args) == 1:
    return _message(error.args[0])
  return str(error) or type(error).__name__


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags; a wrong one ends the program with one line."""
  try:
    last = {}  # ml_collections would join two tuples given for one setting
    for i, argument in enumerate(argv):
      name, equals, _ = argument.partition('=')
      key = name if equals and name.startswith('--config.') else i
      last[key] = _found_config(argument)
    return flags.FLAGS(list(last.values()))
  except Exception as error:  # a config is a program, and may raise anything
    text = _message(error)
    for argument in argv:
      section, *keys = argument.partition('=')[0].split('.')
      if section == '--config' and any(f"'{key}'" in text for key in keys):
        text = f'{argument}: there is no such setting; {text}'
        break
    sys.exit(say(text))


def _found_config(argument):
  """Turns --config=NAME, or configs/NAME.py, into the path in the package."""
  name, _, value = argument.partition('=')
  given, colon, rest = value.partition(':')  # FILE:ARGUMENT of get_config
  path = pathlib.Path(given)
  if name != '--config' or path.is_file():
    return argument
  packaged = CONFIGS / f'{path.stem}.py'
  if str(path.parent) in ('.', 'configs') and packaged.is_file():
    return f'{name}={packaged}{colon}{rest}'
  raise ValueError(
    f'--config={value}: no such file; the configs in the package are '
    + ', '.join(sorted(f.stem for f in CONFIGS.glob('[a-z]*.py')))
  )


def _check_flags(argv):
  """Refuses what absl takes, and no command can."""
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


def check_output(path: str, key: str) -> None:
  """Raises OSError if results cannot be written to a JSON file.

  Args:
    path: the file; '' where none is to be written.
    key: what such results have; they may be replaced, but nothing else.
  """
  file = pathlib.Path(path)
  if path and not os.access(file.parent, os.W_OK):
    raise FileNotFoundError(
      f'--output={path}: its folder does not exist, or cannot be written to'
    )
  free = not path or not os.path.lexists(file)
  if file.is_file() and not file.is_symlink():  # nothing else is opened
    with contextlib.suppress(ValueError, TypeError, RecursionError):
      free = key in json.loads(file.read_bytes())
  if not free:
    raise FileExistsError(
      f'--output={path} is something else than such results; give another file'
    )
