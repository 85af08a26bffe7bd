"""Times the phases of `bitseg predict` for one photograph and eight samples.

  python benchmarks/phases.py PHOTO

The first time the two programs are compiled, and kept: run it twice.
"""

import contextlib
import sys
import time


@contextlib.contextmanager
def phase(name):
  """Prints the seconds that a block takes."""
  began = time.perf_counter()
  yield
  print(f'{name:<28}{time.perf_counter() - began:6.2f} s', flush=True)


def main():
  """Does what predict does, step by step."""
  with phase('importing jax and flax'):
    import flax.linen
    import jax
  with phase('importing the rest'):
    from bitseg_jax import Segmenter
    from bitseg_jax.app import collection
    from bitseg_jax.runs import programs
  del flax, jax, collection  # only imported
  programs.keep_programs()
  with phase('reading the model'):
    segmenter = Segmenter.from_pretrained()
  kept = programs.kept

  def timed(function, which, *told):
    with phase(f'loading the {("encoder", "sampler")[which]}'):
      return kept(function, which, *told)

  programs.kept = timed
  with phase('the first photograph, with this'):
    segmenter.segment(sys.argv[1])
  with phase('the next'):
    segmenter.segment(sys.argv[1], seed=1)


if __name__ == '__main__':
  main()
