"""Segments photos with a trained model.

python -m bitseg_jax.predict --checkpoint=DIR --input='DIR/*.jpg' --output=DIR

For every photo NAME.*, in the output directory:

  NAME_labels.png       at the photo's size, 16 bits: segment id + 1, for 0 is
                        'unlabelled' in the labels that bitseg_jax.prepare reads
  NAME_overlay.png      the segments in colour over the photo
  NAME_uncertainty.png  if there are several samples: where they disagree, from
                        black over purple to yellow
  NAME_samples.png      if there are several samples: up to ten side by side

All but the labels are pictures for people, of at most 1024 pixels.
"""

import os
import sys
import time

from absl import app, flags, logging
from tqdm import tqdm

from bitseg_jax import photos
from bitseg_jax.segmenter import Segmenter


def predict(
  checkpoint: str,
  inputs: str,
  output: str,
  num_samples: int = 1,
  seed: int = 0,
  num_steps: int | None = None,
  guidance_weight: float | None = None,
) -> int:
  """Segments photos and writes what the module docstring says.

  Args:
    checkpoint: workdir of a run, or <workdir>/checkpoints/<step>.
    inputs: a photo, a directory of photos, or a glob pattern (** goes deep).
    output: directory to write to; results that are there are replaced.
    num_samples: samples a photo.
    seed: of the samples.
    num_steps: of the sampler; None as in the checkpoint's config.
    guidance_weight: likewise; 0 is off.

  Returns:
    The exit code: 0 when every photo was segmented, else 1.
  """
  began, done = time.perf_counter(), 0
  options = num_samples, seed, num_steps, guidance_weight
  interval = 0.5 if sys.stderr.isatty() else 20
  try:
    paths = photos.find(inputs, output)
    segmenter = Segmenter.from_checkpoint(checkpoint)
    at_once = max(1, segmenter.batch_size // max(1, num_samples))
    with tqdm(total=len(paths), unit='photo', mininterval=interval) as progress:
      for start in range(0, len(paths), at_once):
        group = paths[start : start + at_once]
        read = photos.read(group)
        results = segmenter.segment_batch(list(read.values()), *options)
        for (path, photo), result in zip(read.items(), results, strict=True):
          photos.write(output, path.stem, photo, result)
          done += 1
        progress.update(len(group))
  except (ValueError, OSError) as error:
    if os.environ.get('BITSEG_TRACEBACK'):
      raise
    return _fail(str(error))
  except KeyboardInterrupt:
    return _fail(f'interrupted; {done} photos are done in {output}')
  seconds = (time.perf_counter() - began) / max(done, 1)
  print(
    f'{done} of {len(paths)} photos segmented into {output}'
    + f', {seconds:.2f} s each with loading and compiling' * bool(done)
  )
  return 0 if done == len(paths) else 1


def _fail(reason: str) -> int:
  print(f'error: {reason}', file=sys.stderr)
  return 1


def _define_flags() -> None:
  flags.DEFINE_string('checkpoint', None, 'Workdir of a run, or a step of it.')
  flags.DEFINE_string('input', None, 'Photo, directory of them, or pattern.')
  flags.DEFINE_string('output', None, 'Directory to write to.')
  flags.DEFINE_integer('num_samples', 1, 'Samples a photo.', lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Of the samples.')
  flags.DEFINE_integer('num_steps', None, 'Of the sampler.', lower_bound=1)
  flags.DEFINE_float('guidance_weight', None, 'Of the sampler; 0 is off.')
  flags.mark_flags_as_required(['checkpoint', 'input', 'output'])


def main(argv: list[str]) -> int:
  """Runs `predict` on the flags."""
  if len(argv) > 1:
    return _fail(f"{argv[1]} is no flag; quote patterns: --input='DIR/*.jpg'")
  logging.set_verbosity(logging.ERROR)  # orbax warns of what is meant
  f = flags.FLAGS
  return predict(
    f.checkpoint,
    f.input,
    f.output,
    f.num_samples,
    f.seed,
    f.num_steps,
    f.guidance_weight,
  )


if __name__ == '__main__':
  _define_flags()
  app.run(main)
