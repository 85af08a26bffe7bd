"""Disks that are full, and disks that fail in passing."""

import logging
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax

_FILES = 100  # more than orbax makes of a step
_TRIES = 3


def check_room(folder: pathlib.Path, tree: Any) -> None:
  """Checks that arrays fit a disk, so that no half of them fills it.

  Args:
    folder: where they will be written.
    tree: pytree of arrays.

  Raises:
    OSError: they do not fit, or the disk has no room for more files.
  """
  needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
  disk = os.statvfs(folder)
  free = disk.f_bavail * disk.f_frsize
  if free < needed:
    raise OSError(
      f'it takes {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free'
    )
  # File systems that count no files report 0 of 0.
  if disk.f_files and disk.f_favail < _FILES:
    raise OSError(f'the disk has room for {disk.f_favail} more files only')


def retry(function: Callable[[], Any]) -> Any:
  """Calls again where the file system fails, as network ones do in passing.

  Returns:
    What the function returns.

  Raises:
    OSError: it failed three times, or a file is not there.
  """
  for i in range(_TRIES):
    try:
      return function()
    except FileNotFoundError:
      raise
    except OSError as error:
      if i == _TRIES - 1:
        raise
      logging.warning('%s; trying again', ' '.join(str(error).split()))
      time.sleep(2.0**i)
  raise AssertionError('unreachable')
