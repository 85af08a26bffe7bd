"""Compiling the programs that take nearly all the time."""

import contextlib
import ctypes
import functools
import mmap
import os
import pathlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

_NAME = 'xla_cpu_experimental_ynn_fusion_type'
_KINDS = ('LIBRARY_FUSION_TYPE_DOT', 'LIBRARY_FUSION_TYPE_REDUCE')


def options(mesh: Mesh) -> dict[str, str] | None:
  """Returns `compiler_options` of jax.jit for training steps and samplers.

  On CPU it leaves products and sums to YNNPACK, but not convolutions, as some
  jaxlibs do by default: those are no faster for large arrays, half as fast for
  small ones, and their gradients by kernels take four times as long.

  JAX takes options for whole programs alone: what is jitted with some cannot be
  called within another jitted function.

  Args:
    mesh: devices that the program is compiled for.

  Returns:
    The options by name; None where there is nothing to change: on other
    devices, with a jaxlib without that choice, or if XLA_FLAGS makes it.
  """
  on_cpu = mesh.devices.flat[0].platform == 'cpu'
  chosen = _NAME in os.environ.get('XLA_FLAGS', '')
  if not on_cpu or chosen or not _jaxlib_knows(_NAME, *_KINDS):
    return None
  return {_NAME: ','.join(_KINDS)}


@functools.cache
def _jaxlib_knows(*names):
  """Whether the names occur in jaxlib: an unknown option would be an error."""
  import jaxlib  # does not open any device

  folder = pathlib.Path(jaxlib.__file__).parent
  libraries = [*folder.glob('libjax_common.*'), *folder.glob('xla_extension.*')]
  for library in libraries:
    with (
      open(library, 'rb') as file,
      mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
      if all(text.find(name.encode()) >= 0 for name in names):
        return True
  return False


def compile_ahead(
  function: Callable[..., Any], *args: Any
) -> Callable[..., Any]:
  """Compiles a jitted function before its first call.

  Args:
    function: jitted function.
    *args: arguments of the call, or their jax.ShapeDtypeStruct.

  Returns:
    The compiled program, to be called with arguments of the same shapes.
  """
  program = function.lower(*args).compile()
  # Returns the memory of compilation, a GiB for the paper's model, which glibc
  # would keep. Other C libraries lack this function.
  with contextlib.suppress(OSError, AttributeError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)
  return program
