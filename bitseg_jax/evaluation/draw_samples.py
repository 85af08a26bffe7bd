"""Draws samples of the diffusion, for evaluation and for photos alike.

Each image is encoded once for all of its samples. Batches have one size and are
filled up, so that everything is compiled once.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bitseg_jax import diffusion, sampler
from bitseg_jax.runs import devices
from bitseg_jax.runs.build import Experiment, SamplerOptions


class Functions(NamedTuple):
  """The two compiled programs that draw samples.

  A sample depends on seed and label alone, whatever the batch, and is 0 in the
  padding beyond size. Programs that were made for it take a start, too: codes
  int32 [B, G, G], -1 where nothing is said, and strength, float32 [].
  """

  # (params, image uint8 [B, S, S, 3]) -> seen [B, ...]
  encode: Callable[..., jax.Array]
  # (params, seen, size int32 [B, 2], labels int32 [B, 2], seed uint32 [],
  # *start) -> x_hat float32 [B, G, G, C]
  sample: Callable[..., jax.Array]


def make_functions(
  parts: Experiment,
  options: SamplerOptions,
  mesh: Mesh | None,
  with_start: bool = False,
) -> Functions:
  """Compiles what draws samples of a trained model.

  Batches are split over the devices of the mesh; None is for export. With a
  start, samples begin from a segmentation, see sampler.sample_from.
  """

  def sample(params, seen, size, labels, seed, *start):
    # Named, so that a program's default generator changes no sample.
    key = jax.random.key(seed, impl='threefry2x32')
    fold = lambda label: jax.random.fold_in(
      jax.random.fold_in(key, label[0]), label[1]
    )
    along = jnp.arange(parts.code_size)
    height, width = size[:, 0, None, None], size[:, 1, None, None]
    valid = (along[:, None] < height) & (along < width)
    denoise = diffusion.guided_denoiser(
      parts.denoise, params, seen, options.guidance_weight
    )
    draw_from, begin = sampler.sample, (*valid.shape, parts.codec.channels)
    if with_start:
      draw_from = sampler.sample_from
      begin = parts.codec.encode(start[0]), start[1]
    return draw_from(
      denoise,
      jax.vmap(fold)(labels),
      begin,
      parts.schedule,
      num_steps=options.num_steps,
      method=options.method,
      variance=options.variance,
      valid_mask=valid,
    )

  if mesh is None:
    return Functions(jax.jit(parts.encode), jax.jit(sample))
  rows, fast = devices.split_on(mesh), devices.compiler_options(mesh)
  placed = {'out_shardings': rows, 'compiler_options': fast}
  # Parameters lie as they are.
  given = None, *[rows] * 3, None, *[rows, None] * with_start
  return Functions(
    jax.jit(parts.encode, in_shardings=(None, rows), **placed),
    jax.jit(sample, in_shardings=given, **placed),
  )


class Jobs(NamedTuple):
  """Which samples of which images are drawn.

  Each image is a function that reads it: {'image': uint8 [S, S, 3], 'size':
  int32 [2], ...}, see transforms.evaluation_example. With strength it has also
  'start', codes int32 [G, G], -1 where nothing is said.
  """

  images: Sequence[Callable[[], dict[str, Any]]]
  counts: Sequence[int]  # of samples of each image
  seed: int
  shared_noise: bool = False  # sample n of every image begins with the same
  strength: float | None = None  # how much of 'start' may change, see sampler


def draw(
  functions: Functions,
  params: Any,
  jobs: Jobs,
  mesh: Mesh,
  batch_size: int,
) -> Iterator[tuple[int, dict[str, Any], np.ndarray]]:
  """Draws samples of images; each process gets those of its own images.

  While the devices draw one batch, the images of the next are read and the
  caller has the samples of the last. A batch has `batch_size` samples over all
  processes.

  Yields:
    (index of the image, what was read of it, x_hat float32 [n, G, G, C]) for
    the samples of an image that a batch has drawn, in the order of images; an
    image of many samples comes several times.

  Raises:
    ValueError: a sample is not finite; decoded, it would pass for a segment.
  """
  if not sum(jobs.counts):
    return
  rows = len(devices.local_rows(mesh, batch_size))
  at_once = len(mesh.local_devices)  # images that are encoded
  mine, count = jax.process_index(), jax.process_count()
  pairs = [
    [(i, n) for i in of_one for n in range(jobs.counts[i])]
    for of_one in (range(len(jobs.counts))[k::count] for k in range(count))
  ]
  batches = [  # of each process
    [of_one[at : at + rows] for at in range(0, max(map(len, pairs)), rows)]
    for of_one in pairs
  ]
  images_of = lambda batch: {i for i, _ in batch}
  # The images of each batch that are not in the one before.
  added = lambda before, now: sorted(images_of(now) - images_of(before))
  new = [list(map(added, [[], *of_one], [*of_one, []])) for of_one in batches]
  for of_one in new:  # with no image of its own, it still takes part
    of_one[0] = of_one[0] or [0]
  examples, seen = {}, {}
  read = lambda k: {i: jobs.images[i]() for i in new[mine][k]}

  def encode(k):
    """Encodes the new images of a batch; all processes call this alike."""
    calls = max(-(-len(of_one[k]) // at_once) for of_one in new)
    for call in range(calls):
      some = new[mine][k][call * at_once : (call + 1) * at_once]
      filled = (some or list(examples)[:1]) * at_once
      images = np.stack([examples[i]['image'] for i in filled[:at_once]])
      found = functions.encode(params, devices.put_batch(images, mesh))
      seen.update(zip(some, devices.local_part(found), strict=False))

  def launch(batch):
    filled = (batch + (batch or [(next(iter(seen)), 0)]) * rows)[:rows]
    stacked = lambda name: np.stack([examples[i][name] for i, _ in filled])
    labels = [(n, 0 if jobs.shared_noise else i) for i, n in filled]
    encoded, start = np.stack([seen[i] for i, _ in filled]), ()
    given = encoded, stacked('size'), np.array(labels, np.int32)
    if jobs.strength is not None:
      start = devices.put_batch(stacked('start'), mesh)
      start = start, jnp.float32(jobs.strength)
    placed = devices.put_batch(given, mesh)
    return functions.sample(params, *placed, np.uint32(jobs.seed), *start)

  def collect(batch, x_hat):
    x_hat = devices.local_part(x_hat)[: len(batch)]
    if not np.isfinite(x_hat).all():
      raise ValueError(
        'the sampler drew values that are not finite: the weights are damaged '
        'or the model did not train; look at the loss in metrics.jsonl'
      )
    for i in sorted(images_of(batch)):
      yield i, examples[i], x_hat[[j == i for j, _ in batch]]

  waiting = None
  with ThreadPoolExecutor(1) as reader:
    reading = reader.submit(read, 0)
    for k, batch in enumerate(batches[mine]):
      examples.update(reading.result())
      encode(k)
      launched = batch, launch(batch)
      reading = reader.submit(read, k + 1)
      if waiting:
        yield from collect(*waiting)
        for i in images_of(waiting[0]) - images_of(batch):
          if len(examples) > 1:  # one is left, to fill up with
            del examples[i], seen[i]
      waiting = launched
    if waiting:
      yield from collect(*waiting)
