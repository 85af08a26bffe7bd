"""Times the phases of `bitseg predict` for one photograph and eight samples.

  python benchmarks/phases.py PHOTO

The first time programs are compiled, and kept: run it twice.
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
    import numpy as np

    from bitseg_jax import Segmenter
    from bitseg_jax.app import collection
    from bitseg_jax.evaluation import draw_samples
    from bitseg_jax.runs import build, devices, programs, weights
  del flax, collection  # only imported
  programs.keep_compiled()
  with phase('reading the model'):
    found = weights.read(weights.DEFAULT)
  params, config, mesh = found.params, found.config, devices.make_mesh()
  parts, options = build.build(config), build.SamplerOptions(**config.sample)
  functions = draw_samples.make_functions(parts, options, mesh)
  put = lambda array: devices.put_batch(array, mesh)
  size = np.full((1, 2), parts.code_size, np.int32)
  image = put(np.zeros((1, *2 * [parts.image_size], 3), np.uint8))
  with devices.jax_defaults():
    with phase('tracing the encoder'):
      lowered = functions.encode.lower(params, image)
    with phase('loading it compiled'):
      encode = lowered.compile()
    with phase('encoding'):
      seen = jax.block_until_ready(encode(params, image))
    given = params, put(np.asarray(seen)), put(size), put(0 * size)
    with phase('tracing the sampler'):
      lowered = functions.sample.lower(*given, np.uint32(0))
    with phase('loading it compiled'):
      sample = lowered.compile()
    with phase('eight samples'):
      for seed in range(8):
        jax.block_until_ready(sample(*given, np.uint32(seed)))
  segmenter = Segmenter(found)
  segmenter.segment(sys.argv[1])
  with phase('a photograph, all in all'):
    segmenter.segment(sys.argv[1], seed=1)


if __name__ == '__main__':
  main()
