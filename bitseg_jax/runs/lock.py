"""One program at a time in a folder, by a lock that dies with its holder."""

import contextlib
import errno
import fcntl
import logging
import os
import pathlib
import socket
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from bitseg_jax.runs.log import naming

NAME = '.lock'


class LockedError(OSError):
  """Another program holds the folder."""


@contextlib.contextmanager
def hold_for_all(folder: str | pathlib.Path) -> Iterator[None]:
  """Holds a folder for a run of several processes; process 0 takes it.

  Args:
    folder: as for `hold`.

  Raises:
    LockedError: on all processes, if another run holds it.
  """
  failure, lock = None, contextlib.ExitStack()
  with lock:
    if jax.process_index() == 0:
      try:
        lock.enter_context(hold(folder))
      except OSError as error:
        failure = error
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(
      np.array(failure is not None)
    ):
      failure = failure or LockedError(f'{folder}: process 0 cannot hold it')
    if failure:
      raise failure
    yield


@contextlib.contextmanager
def hold(
  folder: str | pathlib.Path, part: tuple[int, int] | None = None
) -> Iterator[None]:
  """Holds a folder until the block ends, or the process, however it does.

  The kernel drops the lock with the process, also where it is killed; on NFS
  the server does. Where a file system knows no locks, a warning says so.

  Args:
    folder: made if it is not there.
    part: (index, count) holds that part of the work, beside the other parts;
      None holds the folder alone, so not while any part is held.

  Raises:
    LockedError: another process holds it; one line that names it.
    OSError: the folder cannot be made or written to.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  with _held(folder / NAME, folder, shared=bool(part)):
    if part:
      with _held(folder / f'{NAME}-{part[0]}-of-{part[1]}', folder):
        yield
    else:
      for path in folder.glob(f'{NAME}-*-of-*'):  # nobody holds a part now
        path.unlink(missing_ok=True)
      yield


@contextlib.contextmanager
def _held(path, folder, shared=False):
  # Opened to append: the holder's name stays for others to read.
  follow_no_link = lambda name, flags: os.open(
    name, flags | os.O_NOFOLLOW, 0o666
  )
  with open(path, 'a+', opener=follow_no_link) as file:
    try:
      kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
      fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      holder = file.read().strip() or 'another process'
      raise LockedError(
        f'{folder} is in use by {holder}; wait for it to end, or use another '
        'folder'
      ) from error
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
        raise
      logging.warning('%s cannot be locked; run one program in it', folder)
    file.truncate(0)
    with naming(path):  # unbuffered, or closing it would fail once more
      holder = f'process {os.getpid()} on {socket.gethostname()}\n'
      os.write(file.fileno(), holder.encode())
    yield
