"""A trained model behind one object: photos in, segmentations out."""

import dataclasses
import functools
import hashlib
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from bitseg_jax.app import photos, stablehlo, steering, views
from bitseg_jax.app.answer import AnswerOptions, Segmentation
from bitseg_jax.configs import base
from bitseg_jax.data import pipeline
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build, devices, schema, weights

Photo = np.ndarray | Image.Image


class Segmenter:
  """Draws segmentations of photos from one trained model.

  The result depends on photo, seed and settings alone: every batch has the
  same size, filled up where photos are missing, and sample n of every photo
  starts from the same noise. So the sampler is compiled once for each
  (num_steps, guidance_weight) and then kept. Threads may share a segmenter.
  """

  @devices.jax_defaults()
  def __init__(
    self,
    parts: build.Experiment,
    params: Any,
    settings: ConfigDict,
    batch_size: int | None = None,
    step: int | None = None,
    digest: str | None = None,
    config: ConfigDict | None = None,
  ):
    """Keeps the parts; see `load`, which gathers them.

    Args:
      parts: the experiment.
      params: parameters of its model.
      settings: the config's `sample` section.
      batch_size: samples drawn at once over all devices, rounded up to a
        multiple of their number. None: 8 a device; on CPU as many as keep
        its cores busy, which is 1 but for the smallest networks.
      step: of the checkpoint, for those who want to know.
      digest: of the weights, which tells them from any others.
      config: of the run, which `save_pretrained` writes.

    Raises:
      ValueError: if batch_size is not positive.
    """
    count = jax.device_count()
    if batch_size is None:
      on_cpu = jax.default_backend() == 'cpu'
      batch_size = count * (fit_for_cpu(parts) if on_cpu else 8)
    schema.check_value('batch_size', batch_size, base.EVAL['batch_size'])
    self.batch_size = -(-batch_size // count) * count
    self._parts = parts
    self._params = params
    self._settings = settings
    self._mesh = devices.make_mesh()
    self._sample_fns = {}
    self._last = None  # what was drawn of the last photo, see _draw_views
    self._lock = threading.Lock()
    self._drawing = threading.Lock()
    self.step, self.digest = step, digest
    self._config = config

  @classmethod
  def load(
    cls, name: str | pathlib.Path, batch_size: int | None = None
  ) -> 'Segmenter':
    """Loads a model from whatever `from_checkpoint` or `from_pretrained` takes.

    Raises:
      OSError, ValueError: see there.
    """
    return cls._of(weights.read(name), batch_size)

  @classmethod
  def from_checkpoint(
    cls,
    path: str | pathlib.Path,
    kind: str = 'ema_params',
    batch_size: int | None = None,
  ) -> 'Segmenter':
    """Loads the model of a run; its config is in the checkpoint.

    Args:
      path: workdir of the run, whose newest whole step is taken; or
        <workdir>/checkpoints/<step>.
      kind: 'ema_params' or 'params'.
      batch_size: see `__init__`.

    Returns:
      The segmenter.

    Raises:
      FileNotFoundError: if there is no whole checkpoint.
      ValueError: if kind is neither.
    """
    return cls._of(weights.read(path, kind), batch_size)

  @classmethod
  def from_pretrained(
    cls,
    name: str | pathlib.Path = weights.DEFAULT,
    batch_size: int | None = None,
  ) -> 'Segmenter':
    """Loads a model that `save_pretrained` wrote.

    Args:
      name: its folder; the name of a model that comes with the package, such as
        'photos'; or hf://OWNER/NAME[@REVISION].
      batch_size: see `__init__`.

    Raises:
      OSError, ValueError, ImportError: see weights.read.
    """
    return cls._of(weights.read(name), batch_size)

  @classmethod
  def _of(cls, found, batch_size):
    config = found.config.copy_and_resolve_references()
    # A photo at a time it gains nothing, and exports must run anywhere.
    config.model.fused_attention = False
    parts, step = build.build(config), found.step
    more = step, found.digest, found.config
    return cls(parts, found.params, config.sample, batch_size, *more)

  def save_pretrained(
    self, folder: str | pathlib.Path, dtype: str = 'bfloat16', card: str = ''
  ) -> None:
    """Writes the model to a folder that `from_pretrained` reads.

    Args:
      folder, dtype, card: see weights.save.

    Raises:
      ValueError, OSError: see there.
    """
    if self._config is None:
      raise ValueError('this segmenter was made without the config of its run')
    weights.save(folder, self._params, self._config, card, dtype)

  def segment(
    self,
    image: Photo,
    num_samples: int = 8,
    seed: int = 0,
    known: np.ndarray | None = None,
    start: np.ndarray | None = None,
    strength: float = 0.5,
    **options: Any,
  ) -> Segmentation:
    """Segments one photo.

    Args:
      image: as in `segment_batch`.
      num_samples, seed, strength: see AnswerOptions.
      known: int [H, W], what is known of the photo: -1 where nothing is said,
        else the same number for pixels of one entity and different numbers for
        pixels of different ones. The result agrees with it.
      start: int [H, W], a segmentation by any method to begin from, of which
        `strength` says how much may change.
      **options: other fields of AnswerOptions.
    """
    options |= {'num_samples': num_samples, 'seed': seed, 'strength': strength}
    return self.segment_batch([image], known=[known], start=[start], **options)[
      0
    ]

  @devices.jax_defaults()
  def segment_batch(
    self,
    images: Sequence[Photo],
    options: AnswerOptions | None = None,
    known: Sequence[np.ndarray | None] | None = None,
    start: Sequence[np.ndarray | None] | None = None,
    progress: Callable[[draw_samples.Progress], None] | None = None,
    **changes: Any,
  ) -> list[Segmentation]:
    """Segments photos of any sizes.

    Args:
      images: uint8 [H, W, 3] RGB or [H, W] grey, or Pillow images, see
        photos.as_rgb.
      options: how they are segmented; None: AnswerOptions().
      known, start: as in `segment`, for each photo.
      progress: told whenever samples are drawn.
      **changes: fields of AnswerOptions that differ from options.

    Returns:
      One segmentation per photo.

    Raises:
      ValueError: a photo or an option is none of the above.
    """
    o = dataclasses.replace(options or AnswerOptions(), **changes)
    least_tile = self._parts.image_size
    if o.tile is not None and o.tile < least_tile:
      raise ValueError(
        f'tile is {o.tile}; it must be at least {least_tile} pixels'
      )
    images = [photos.as_rgb(image) for image in images]
    said_of = steering.check(images, known, start, o.strength, o.tile)
    sampler = o.num_steps, o.guidance_weight
    draw = functools.partial(
      self._draw, seed=o.seed, sampler=sampler, progress=progress
    )
    looks = views.plan(images, o.tile, o.num_samples, o.closeups)
    true_to = None if steering.is_free(said_of) else said_of
    drawn = self._draw_views(draw, images, looks, true_to, (o.seed, sampler))
    how = o.method, o.follow_edges, o.color_votes
    how += o.min_area, o.split_disconnected
    return list(views.answers(images, looks, drawn, said_of, *how))

  def _draw_views(self, draw, images, looks, said_of, settings):
    """Draws views; or, of the photo of the last time, takes what it drew.

    So marks that are added to a photo are answered at once.
    """
    given = images, looks, said_of, self._parts
    if said_of is not None or len(images) != 1:
      return views.draw(draw, *given)
    digest = hashlib.blake2b(images[0].tobytes()).hexdigest()
    key = digest, images[0].shape, looks, settings
    last = self._last
    if last is None or last[0] != key:
      self._last = last = key, views.draw(draw, *given)
    return last[1]

  @devices.jax_defaults()
  def export(
    self,
    path: str | pathlib.Path,
    num_steps: int | None = None,
    guidance_weight: float | None = None,
  ) -> None:
    """Writes sampler and parameters for programs without this package.

    Args:
      path: folder to write to, see stablehlo.py.
      num_steps, guidance_weight: as in `segment_batch`.

    Raises:
      ValueError: the codec decodes on the host, so it cannot be exported.
    """
    settings = self.sampler_settings(num_steps, guidance_weight)
    stablehlo.export(self._parts, self._params, ConfigDict(settings), path)

  def _draw(
    self, images, counts, seed, sampler, progress, plans=None, strength=1.0
  ) -> list[tuple]:
    """(codes, probabilities) of each image for answer.from_samples."""
    parts, total = self._parts, sum(counts)
    functions = self._functions(*sampler, with_start=bool(plans))
    read = lambda i: self._example(images[i], plans and plans[i])
    jobs = draw_samples.Jobs(
      [functools.partial(read, i) for i in range(len(images))],
      counts,
      seed,
      shared_noise=True,
      strength=strength if plans else None,
    )
    drawn = [[] for _ in images]
    sizes, done = {}, 0
    with self._drawing:  # two batches at once may not fit the devices
      for i, example, x_hat in draw_samples.draw(
        functions, self._params, jobs, self._mesh, self.batch_size
      ):
        drawn[i].append(x_hat)
        sizes[i], done = example['size'], done + len(x_hat)
        if progress:
          progress(draw_samples.Progress(done, total))
    found = []
    for i, x_hats in enumerate(drawn):
      height, width = sizes[i]
      x_hat = np.concatenate(x_hats)[:, :height, :width]
      codes = np.asarray(parts.codec.decode(x_hat))
      found.append((codes, functools.partial(_probabilities, parts, x_hat)))
    return found

  def _example(self, image, start):
    parts = self._parts
    blank = np.zeros(image.shape[:2], np.int32)
    example = pipeline.evaluation_example(
      {'name': '', 'image': image, 'id_maps': [blank]},
      parts.image_size,
      parts.code_size,
    )
    if start is not None:
      padded = np.full((parts.code_size,) * 2, -1, np.int32)
      padded[: start.shape[0], : start.shape[1]] = start
      example['start'] = padded
    return example

  def sampler_settings(
    self, num_steps: int | None = None, guidance_weight: float | None = None
  ) -> dict[str, Any]:
    """The sampler's settings; what is None is as in the config of the run."""
    settings = self._settings.to_dict()
    if num_steps is not None:
      settings['num_steps'] = num_steps
    if guidance_weight is not None:
      settings['guidance_weight'] = float(guidance_weight)
    for name in ('num_steps', 'guidance_weight'):
      schema.check_value(name, settings[name], base.SAMPLE[name])
    return settings

  def _functions(self, num_steps, guidance_weight, with_start):
    """The compiled programs for these settings, made when first asked for."""
    settings = ConfigDict(self.sampler_settings(num_steps, guidance_weight))
    key = settings.num_steps, settings.guidance_weight, with_start
    with self._lock:
      if key not in self._sample_fns:
        self._sample_fns[key] = draw_samples.make_functions(
          self._parts, build.sampler_options(settings), self._mesh, with_start
        )
      return self._sample_fns[key]


def _probabilities(parts, x_hat, n):
  return np.asarray(parts.codec.probabilities(x_hat[n]))


def fit_for_cpu(parts: build.Experiment) -> int:
  """How many samples to draw at once on CPU.

  They together have some thousand positions in the first level. Below that, two
  cores sample faster for several at once (1.2 times with 256 positions each),
  above it slower (0.9 times with 16,384).
  """
  network = getattr(parts.model, 'denoiser', parts.model)
  positions = (parts.code_size // getattr(network, 'patch_size', 1)) ** 2
  return max(1, min(8, 1024 // positions))
