"""Compiles programs ahead, and keeps them for the next start."""

import contextlib
import ctypes
import hashlib
import os
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import flax
import jax
import jaxlib
from jax.experimental import serialize_executable

from bitseg_jax.runs import log

_folder = []  # where `kept` keeps programs
_MOST = 20  # of them; the oldest go


def keep_compiled(folder: str | os.PathLike) -> None:
  """Has JAX keep what it compiles for the next start, unless told where."""
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', str(folder))


def keep_programs() -> None:
  """Has `kept` keep programs in ~/.cache, if that can be written to."""
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  folder = pathlib.Path(cache, 'bitseg_jax')
  with contextlib.suppress(OSError):
    folder.mkdir(parents=True, exist_ok=True)
  if os.access(folder, os.W_OK):
    _folder[:] = [folder]


def kept(function: Callable, *depends_on: Any) -> Callable[..., Any]:
  """Has the program of a jitted function read where an earlier start kept it.

  JAX's own cache would still trace it. The function stays as it is without
  keep_programs, and where JAX has a cache: what it reads there cannot be kept.

  Args:
    function: called with arguments of the same shapes each time.
    *depends_on: plain values that tell the program, and these shapes, from all
      others that the code of this package makes.
  """
  if not _folder or jax.config.jax_compilation_cache_dir:
    return function
  key = hashlib.sha256(repr(depends_on).encode())
  how = [*sorted(jax.config.values.items()), os.environ.get('XLA_FLAGS')]
  how += [(d, d.device_kind) for d in jax.devices()]
  how += [m.__version__ for m in (flax, jax, jaxlib)]
  with contextlib.suppress(OSError):  # machines that share a home may differ
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    how += sorted({s for s in lines if s.startswith(('flags', 'Features'))})
  key.update(repr(how).encode())
  for path in sorted(pathlib.Path(__file__).parents[1].rglob('*.py')):
    key.update(path.read_bytes())
  path = _folder[0] / f'{key.hexdigest()}.program'
  program = None
  with contextlib.suppress(Exception):  # there is none, or it is damaged
    whole = path.read_bytes()
    if hashlib.sha256(whole[32:]).digest() == whole[:32]:
      content = pickle.loads(whole[32:])
      program = serialize_executable.deserialize_and_load(*content)

  def call(*args):
    nonlocal program
    if program is None:
      program = function.lower(*args).compile()
      with contextlib.suppress(Exception):
        content = pickle.dumps(serialize_executable.serialize(program))
        with log.whole_file(path, 'wb') as file:
          file.write(hashlib.sha256(content).digest() + content)
        by_age = sorted(_folder[0].glob('*.program'), key=os.path.getmtime)
        for old in by_age[:-_MOST]:
          old.unlink()
    return program(*args)

  return call


def compile_ahead(function: Callable, *args: Any) -> Callable[..., Any]:
  """Compiles a jitted function for arguments, or their jax.ShapeDtypeStruct."""
  program = function.lower(*args).compile()
  # Returns the memory of compilation, a GiB for the paper's model, which glibc
  # would keep. Other C libraries lack this function.
  with contextlib.suppress(OSError, AttributeError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)
  return program
