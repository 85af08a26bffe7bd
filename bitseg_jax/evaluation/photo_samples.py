"""Draws samples of photos of any sizes, always in batches of one size."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bitseg_jax.data import pipeline
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build, devices


def fit_for_cpu(parts: build.Experiment) -> int:
  """How many samples to draw at once on CPU.

  They together have some thousand positions in the first level. Below that, two
  cores sample faster for several at once (1.2 times with 256 positions each),
  above it slower (0.9 times with 16,384).
  """
  positions = (parts.image_size // getattr(parts.model, 'patch_size', 1)) ** 2
  return max(1, min(8, 1024 // positions))


def draw(
  sample_fn: Callable[..., jax.Array],
  parts: build.Experiment,
  probabilities_fn: Callable[[jax.Array], jax.Array],
  mesh: Mesh,
  batch_size: int,
  images: Sequence[np.ndarray],
  counts: Sequence[int],
  seed: int,
  steering: Sequence[tuple[np.ndarray, np.ndarray]] | None,
  strength: float,
  tell: Callable[[int, int, int], None],
) -> list[tuple[np.ndarray, Callable[[int], np.ndarray]]]:
  """Draws samples of photos; sample n of every photo has the same noise.

  Args:
    sample_fn: (done, image, size, keys, ...) -> x_hat, see `tell` and
      draw_samples.make_sample_fn; steered if there is steering.
    parts: the experiment.
    probabilities_fn: the codec's, compiled.
    mesh: devices.
    batch_size: samples drawn at once; the last batch is filled up.
    images: uint8 [H, W, 3] each.
    counts: N, samples of each photo.
    seed: of them.
    steering: known and start of each photo, codes int32 [h, w], -1: not said.
    strength: see sampler.sample.
    tell: called after each batch with the samples drawn, at work and in all.

  Returns:
    For each photo its codes, int32 [N, h, w], and n -> probabilities of the
    codes in sample n, float32 [h, w, C].
  """
  examples = _examples(images, steering, parts.image_size)
  names = ('image', 'size', *('known', 'start') * bool(steering))
  drawn = [([], []) for _ in images]  # codes and x_hat, by sample
  jobs = [(i, n) for i, count in enumerate(counts) for n in range(count)]
  for start in range(0, len(jobs), batch_size):
    batch = jobs[start : start + batch_size]
    filled = batch + batch[:1] * (batch_size - len(batch))
    rows = [examples[i] for i, _ in filled]
    given = devices.put_batch(
      tuple(np.stack([e[k] for e in rows]) for k in names), mesh
    )
    keys = _keys(seed, [n for _, n in filled])
    steer = (*given[2:], jnp.float32(strength)) if steering else ()
    done = start, len(batch), len(jobs)
    x_hat = draw_samples.to_host(sample_fn(done, *given[:2], keys, *steer))
    codes = np.asarray(parts.codec.decode(x_hat))
    for row, (i, _) in enumerate(batch):
      height, width = examples[i]['size']
      drawn[i][0].append(codes[row, :height, :width])
      drawn[i][1].append(x_hat[row])
    tell(start + len(batch), 0, len(jobs))

  of = functools.partial(functools.partial, _probabilities, probabilities_fn)
  return [
    (np.stack(codes), of(x_hats, example['size']))
    for example, (codes, x_hats) in zip(examples, drawn, strict=True)
  ]


def _probabilities(probabilities_fn, x_hats, size, n):
  # All of one shape, for it to be compiled once.
  return np.asarray(probabilities_fn(x_hats[n]))[: size[0], : size[1]]


def _examples(images, steering, side):
  """Photos as in evaluation, which nobody annotated, with what is said."""
  examples = []
  for image in images:
    blank = np.zeros(image.shape[:2], np.int32)
    record = {'name': '', 'image': image, 'id_maps': [blank]}
    examples.append(pipeline.evaluation_example(record, side))
  for example, steer in zip(examples, steering or [], strict=False):
    example |= _padded(steer, side)
  return examples


def _padded(steer, side):
  padded = {}
  for name, codes in zip(('known', 'start'), steer, strict=True):
    padded[name] = np.full((side, side), -1, np.int32)
    padded[name][: codes.shape[0], : codes.shape[1]] = codes
  return padded


def _keys(seed, samples):
  key = jax.random.key(seed)
  return jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.array(samples))
