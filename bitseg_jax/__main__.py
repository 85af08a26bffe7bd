"""The command `bitseg`: `bitseg train --config=quickstart`, for example."""

import importlib
import sys

import bitseg_jax
from bitseg_jax import cli


def main() -> None:
  """Runs the command that the first argument names, or lists them all."""
  cli.open_streams()
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('--help', '-h', 'help'):
    print('bitseg COMMAND [--flag=value ...]\n')
    for command, (_, what) in cli.COMMANDS.items():
      print(f'  {command:<11}{what}')
    print('\nbitseg COMMAND --help lists the flags of one.')
    return
  if name == '--version':
    print(bitseg_jax.__version__)
    return
  if name not in cli.COMMANDS:
    sys.exit(
      cli.say(f'{name} is no command; choose one of {", ".join(cli.COMMANDS)}')
    )
  door = importlib.import_module(f'bitseg_jax.{cli.COMMANDS[name][0]}')
  sys.modules['__main__'].__doc__ = door.__doc__
  sys.argv = [f'bitseg {name}', *sys.argv[2:]]
  cli.run(door.define_flags, door.main)


if __name__ == '__main__':
  main()
