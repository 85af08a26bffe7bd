"""Shared by all commands: flags, configs found by name, errors in one line."""

import contextlib
import errno
import io
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
# Of the configs that come with the package.
CONFIGS = pathlib.Path(__file__).parent / 'configs'


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
  open_streams()
  define_flags()

  def work(argv):
    code = call(lambda: _checked(argv, main))
    code = call(sys.stdout.flush) or code
    if code:
      # Python would wait for its threads first, jax for the other processes,
      # and libraries would tell, after our line, what they could not close.
      os._exit(code)
    sys.exit(0)

  app.run(work, None, parse_flags)


class _Stream(io.FileIO):
  """Takes what is printed, also when nobody reads it, as behind `head`."""

  def write(self, data):
    try:
      return super().write(data)
    except OSError as error:
      if error.errno not in (errno.EPIPE, errno.EBADF):
        raise
      return len(data)


def open_streams() -> None:
  """Lets a command work whose streams are closed, or are closed on the way."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # gets this number, the least that is free
  for number, name in (1, 'stdout'), (2, 'stderr'):
    before, raw = getattr(sys, name), _Stream(number, 'w', closefd=False)
    stream = io.TextIOWrapper(
      io.BufferedWriter(raw),
      getattr(before, 'encoding', 'utf-8'),
      'backslashreplace',  # file names may hold bytes that are no text
      line_buffering=number == 2
      or raw.isatty()
      or getattr(before, 'write_through', False),
    )
    setattr(sys, name, stream)


def define_split() -> None:
  """Defines --data and --split, for commands that score on a dataset."""
  for name, what in (
    ('data', 'Directory of the prepared dataset.'),
    ('split', 'Split to score: train, val or test.'),
  ):
    flags.DEFINE_string(name, None, what, required=True)


def define_plot_format() -> None:
  """Defines --format, for commands that draw plots."""
  # Not above: its import takes seconds.
  from bitseg_jax.evaluation.pictures import PLOT_FORMATS as formats

  flags.DEFINE_enum('format', formats[0], formats, 'File format of the plots.')


def define_shard() -> None:
  """Defines --shard, for commands whose work several jobs may share."""
  flags.DEFINE_string(
    'shard',
    '',
    'I/N, such as 0/4: do part I of N, counted from 0, for N jobs at once. '
    'The same command without it then joins the parts.',
  )


def shard() -> tuple[int, int] | None:
  """Returns (I, N) of --shard; None where it is not given."""
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
  try:
    return main() or 0
  except KeyboardInterrupt:
    reason, code = interrupts.outcome()
    say(reason)
    return code
  except Exception as error:
    line = _of_user(error)
    if line is None or os.environ.get('BITSEG_TRACEBACK'):
      raise
    return say(line)


def _of_user(error):
  """The line for an error that a user can cause; None for others."""
  if 'RESOURCE_EXHAUSTED' in str(error) or isinstance(error, MemoryError):
    said = _message(error)[:200]
    return f'out of memory; ask for less at once ({said})'
  asked, jax = os.environ.get('JAX_PLATFORMS'), sys.modules.get('jax')
  if asked and jax and isinstance(error, RuntimeError | AssertionError):
    try:
      jax.devices()
    except Exception as missing:
      return (
        f'JAX_PLATFORMS={asked}, but JAX finds no such device here; unset it, '
        f'or set JAX_PLATFORMS=cpu ({_message(missing)[:200]})'
      )
  known = ValueError, OSError, ImportError, ArithmeticError
  return _message(error) if isinstance(error, known) else None


def say(error: Exception | str) -> int:
  """Prints the reason for a failure in one line and returns the exit code 1."""
  line = ' '.join(_message(error).split())
  # Progress bars would else stand before the line and after it.
  bars = getattr(sys.modules.get('tqdm'), 'tqdm', None)
  for bar in list(getattr(bars, '_instances', ())):
    bar.close()
  with contextlib.suppress(OSError, ValueError):  # it may be full, or closed
    sys.stdout.flush()  # in a file, what was printed before stands before
  print(f'error: {line}', file=sys.stderr, flush=True)
  return 1


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags; a wrong one ends the program with one line."""
  if {'--help', '-h', '-help'} & set(argv):
    sys.exit(call(_help))
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

  Args:
    path: the file; '' where none is to be written.
    key: what such results have; they may be replaced, but nothing else.

  Raises:
    OSError: in one line, if they cannot be written there.
  """
  file = pathlib.Path(path)
  if path and not os.access(file.parent, os.W_OK):
    raise FileNotFoundError(
      f'--output={path}: its folder does not exist, or cannot be written to'
    )
  try:
    # In this order: nothing else than plain files is opened.
    free = not os.path.lexists(file) or (
      file.is_file()
      and not file.is_symlink()
      and key in json.loads(file.read_bytes())
    )
  except (OSError, ValueError, TypeError, RecursionError):
    free = False
  if path and not free:
    raise FileExistsError(
      f'--output={path} is something else than such results; give another file'
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
  """Prints the docstring of the command and its flags, with their defaults."""
  print(sys.modules['__main__'].__doc__)
  own = {'config'} & set(flags.FLAGS)
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith('bitseg_jax') or module == sys.argv[0]:
      own |= {flag.name for flag in defined}
  for name in sorted(own):
    flag = flags.FLAGS[name]
    default = (flag.default_as_str or '').strip("'") or 'none'
    if any('other than None' in v.message for v in flag.validators):
      default = 'required'
    said = default == 'none' and 'y default' in flag.help
    print(f'  --{name}: {flag.help}' + f' [{default}]' * (not said))


def _found_config(argument):
  """Turns --config=NAME, or configs/NAME.py, into the path in the package."""
  name, equals, value = argument.partition('=')
  if name.lstrip('-') != 'config' or not equals:
    return argument
  path, _, rest = value.partition(':')  # FILE:ARGUMENT of get_config
  if pathlib.Path(path).is_file():
    return argument
  packaged = CONFIGS / f'{pathlib.Path(path).stem}.py'
  named = str(pathlib.Path(path).parent) in ('.', 'configs')
  if not named or not packaged.is_file():
    known = sorted(f.stem for f in CONFIGS.glob('[a-z]*.py'))
    raise ValueError(
      f'--config={value}: no such file; the configs in the package are '
      + ', '.join(known)
    )
  return f'{name}={packaged}' + (f':{rest}' if rest else '')
