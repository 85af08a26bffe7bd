"""Sets the XLA flag that halves the time of a training step on CPU."""

import mmap
import os
import pathlib

# It turns kernel gradients of convolutions into matrix products. Only training
# uses it, because the forward pass alone becomes 8% slower.
_NAME = b'xla_cpu_experimental_ynn_fusion_type'
_FLAG = f'--{_NAME.decode()}=LIBRARY_FUSION_TYPE_DOT'


def use_fast_cpu_training() -> None:
  """Adds the flag to XLA_FLAGS; must be called before devices are opened.

  The flag is experimental, and a jaxlib that does not know it would end the
  program. So it is set only if its name occurs in the jaxlib library, and only
  if XLA_FLAGS does not mention it already.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if _NAME.decode() not in flags and _jaxlib_knows(_NAME):
    os.environ['XLA_FLAGS'] = f'{flags} {_FLAG}'.strip()


def _jaxlib_knows(name):
  import jaxlib  # does not open any device

  folder = pathlib.Path(jaxlib.__file__).parent
  libraries = [*folder.glob('libjax_common.*'), *folder.glob('xla_extension.*')]
  for library in libraries:
    with (
      open(library, 'rb') as file,
      mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
      if text.find(name) >= 0:
        return True
  return False
