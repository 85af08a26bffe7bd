"""How a command ends when its user asked for what cannot be."""

import sys
from typing import NoReturn

from absl import flags


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags; a config key that is not there ends in one line."""
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, TypeError, ValueError, OSError) as error:
    fail(error)


def fail(error: Exception | str) -> NoReturn:
  """Ends the program with one line that says why."""
  text = str(error)
  if isinstance(error, (AttributeError, KeyError)):  # a repr, and in quotes
    text = text.strip("'").replace('\\n', ' ').replace("\\'", "'")
  print('error:', ' '.join(text.split()), file=sys.stderr)
  sys.exit(1)
