"""What all commands share: flags, configs by name, errors in one line."""

import importlib
import os
import pathlib
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict

# Before the doors import what they need: with an older jaxlib, grain warns.
logging.set_verbosity(logging.ERROR)

# Each command, the module that is its door, and what it does.
COMMANDS = {
  'train': ('main', 'train a model and evaluate it'),
  'prepare': ('prepare', 'make a dataset of photos and annotations'),
  'predict': ('predict', 'segment photos with a trained model'),
  'demo': ('demo', 'segment photos on a page in the browser'),
  'score': ('score', 'score the predictions of any method'),
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
    define_flags: defines the command's absl flags.
    main: does the work, once the flags are parsed; returns the exit code, None
      for 0. The errors that a user can cause end in one line and code 1.
  """
  define_flags()
  app.run(
    lambda argv: sys.exit(call(lambda: _checked(argv, main))), None, parse_flags
  )


def call(main: Callable[[], int | None]) -> int:
  """Calls main; an error that a user can cause becomes the last line printed.

  Returns:
    The exit code. With BITSEG_TRACEBACK set, errors are raised instead.
  """
  logging.set_verbosity(logging.ERROR)  # TFDS and orbax tell of every step
  try:
    return main() or 0
  except (ValueError, OSError, ImportError, ArithmeticError) as error:
    if os.environ.get('BITSEG_TRACEBACK'):
      raise
    return say(error)
  except KeyboardInterrupt:
    return say('interrupted; the same command goes on')


def say(error: Exception | str) -> int:
  """Prints why nothing came of it, in one line; returns the exit code 1."""
  text = str(error) or type(error).__name__
  if isinstance(error, (AttributeError, KeyError)):  # a repr, and in quotes
    text = text.strip("'").replace('\\n', ' ').replace("\\'", "'")
  print('error:', ' '.join(text.split()), file=sys.stderr, flush=True)
  return 1


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags; a wrong one ends the program in one line."""
  if '--help' in argv or '-h' in argv or '-help' in argv:
    sys.exit(_help())
  try:
    argv = [_found_config(argument) for argument in argv]
    return flags.FLAGS(argv)
  except (
    flags.Error,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    OSError,
    ImportError,
    SyntaxError,
    NameError,
  ) as error:
    sys.exit(say(error))


def _checked(argv, main):
  if len(argv) > 1:
    raise ValueError(
      f'{argv[1]} is no flag; flags begin with --, and patterns are quoted'
    )
  config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else None
  if config is not None and not isinstance(config, ConfigDict):
    raise ValueError(
      f'--config gives a {type(config).__name__}; get_config must return a '
      'ConfigDict, such as that of configs/base.py with changes'
    )
  return main()


def _help():
  """Prints the docstring of the command and its flags."""
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
  """--config=NAME, or a path that is not here, as the packaged config's path.

  Raises:
    ValueError: there is neither such a file nor such a config.
  """
  name, equals, value = argument.partition('=')
  if name.lstrip('-') != 'config' or not equals:
    return argument
  path, _, rest = value.partition(':')  # FILE:ARGUMENT of get_config
  if pathlib.Path(path).is_file():
    return argument
  folder = config_folder()
  packaged = folder / f'{pathlib.Path(path).stem}.py'
  if not packaged.is_file():
    known = sorted(f.stem for f in folder.glob('[a-z]*.py'))
    raise ValueError(
      f'--config={value}: no such file; the configs in the package are '
      + ', '.join(known)
    )
  return f'{name}={packaged}' + (f':{rest}' if rest else '')


def config_folder() -> pathlib.Path:
  """The folder of the configs that come with the package."""
  return pathlib.Path(
    importlib.import_module('bitseg_jax.configs').__file__
  ).parent
