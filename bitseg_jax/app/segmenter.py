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

from bitseg_jax import palette
from bitseg_jax.app import answer, closeups, stablehlo, tiles
from bitseg_jax.app import known as user
from bitseg_jax.app.answer import AnswerOptions, Segmentation
from bitseg_jax.configs import base
from bitseg_jax.data import transforms
from bitseg_jax.data.images import read_photo
from bitseg_jax.evaluation import draw_samples
from bitseg_jax.runs import build, devices, programs, schema, weights


class Segmenter:
  """Draws segmentations of photos from one trained model.

  The result depends on photo, seed and options alone: every batch has the same
  size, filled up where photos are missing, and sample n of every photo starts
  from the same noise. So the sampler is compiled once for each (num_steps,
  guidance_weight), with a start or without, and kept. Threads may share a
  segmenter. It and results can be pickled, for processes started by spawn.

  Attributes:
    batch_size: samples drawn at once over all devices.
    step: of the checkpoint; None of a pretrained model.
    digest: tells the weights from any others.
  """

  @devices.jax_defaults()
  def __init__(self, found: weights.Weights, batch_size: int | None = None):
    """Keeps a model; see `from_pretrained`, which reads one.

    Args:
      found: the parameters and their config.
      batch_size: samples drawn at once over all devices, rounded up to a
        multiple of their number. None: 8 per device, 2 on CPU.

    Raises:
      ValueError: if batch_size is not positive.
    """
    config, self._mesh = found.config, devices.make_mesh()
    params = jax.device_put(found.params, devices.copied_on(self._mesh))
    self._found = found._replace(params=params)
    self._parts = build.build(config)
    self._sampler = build.SamplerOptions(**config.sample)
    count = jax.device_count()
    if batch_size is None:
      batch_size = 2 if jax.default_backend() == 'cpu' else 8 * count
    schema.check_value('batch_size', batch_size, base.EVAL['batch_size'])
    self.batch_size = -(-batch_size // count) * count
    self.step, self.digest = found.step, found.digest
    self._functions = {}  # what is compiled
    self._last = None  # what was drawn of the last photo, see _drafts
    self._drawing = threading.Lock()

  def __reduce__(self):
    """Pickles parameters and config; what is compiled is compiled anew."""
    params = jax.device_get(self._found.params)
    return Segmenter, (self._found._replace(params=params), self.batch_size)

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

    Raises:
      OSError, ValueError: see weights.read.
    """
    return cls(weights.read(path, kind), batch_size)

  @classmethod
  def from_pretrained(
    cls,
    name: str | pathlib.Path = weights.DEFAULT,
    batch_size: int | None = None,
  ) -> 'Segmenter':
    """Loads a model from wherever it is.

    Args:
      name: folder that `save_pretrained` wrote, name of a model that comes with
        the package, hf://OWNER/NAME[@REVISION], or a run, see weights.read.
      batch_size: see `__init__`.

    Raises:
      OSError, ValueError, ImportError: see there.
    """
    return cls(weights.read(name), batch_size)

  def save_pretrained(
    self, folder: str | pathlib.Path, dtype: str = 'bfloat16', card: str = ''
  ) -> None:
    """Writes the model to a folder that `from_pretrained` reads.

    Arguments and errors are those of weights.save.
    """
    weights.save(folder, self._found.params, self._found.config, card, dtype)

  def segment(
    self,
    image: Any,
    num_samples: int | None = None,
    seed: int | None = None,
    known: np.ndarray | None = None,
    start: np.ndarray | None = None,
    strength: float | None = None,
    **options: Any,
  ) -> Segmentation:
    """Segments one photo.

    Args:
      image: as in `segment_batch`.
      num_samples, seed, strength: see AnswerOptions, also for their defaults.
      known: int [H, W], what is known of the photo: -1 where nothing is said,
        else the same number for pixels of one entity and different numbers for
        pixels of different ones. The result agrees with it.
      start: int [H, W], a segmentation by any method to begin from, of which
        `strength` says how much may change.
      **options: other fields of AnswerOptions, or options=AnswerOptions(...).

    Raises:
      ValueError, OSError: see `segment_batch`.
    """
    told = {'num_samples': num_samples, 'seed': seed, 'strength': strength}
    options |= {name: v for name, v in told.items() if v is not None}
    (result,) = self.segment_batch(
      [image], known=[known], start=[start], **options
    )
    return result

  @devices.jax_defaults()
  def segment_batch(
    self,
    images: Sequence[Any],
    options: AnswerOptions | None = None,
    known: Sequence[np.ndarray | None] | None = None,
    start: Sequence[np.ndarray | None] | None = None,
    progress: Callable[[tuple[int, int]], None] | None = None,
    **changes: Any,
  ) -> list[Segmentation]:
    """Segments photos of any sizes.

    Args:
      images: paths, bytes of files, Pillow images, or arrays [H, W, 3] RGB or
        [H, W] grey, see data.images.read_photo.
      options: how they are segmented; None: AnswerOptions().
      known, start: as in `segment`, for each photo.
      progress: told whenever samples are drawn: how many, and of how many.
      **changes: fields of AnswerOptions that differ from options.

    Returns:
      One segmentation per photo.

    Raises:
      ValueError, OSError: a photo or an option is none of the above.
    """
    options = dataclasses.replace(options or AnswerOptions(), **changes)
    photos = [read_photo(one, options.exif, options.page) for one in images]
    sizes = [photo.shape[:2] for photo in photos]
    known, start = user.check(sizes, known, start)
    if options.tile is not None:
      if any(ids is not None for ids in [*known, *start]):
        raise ValueError('known and start cannot be used with tile')
      return [self._tiled(photo, options, progress) for photo in photos]
    drafts = self._drafts(photos, start, options, progress)
    return [
      answer.finish(drafted, ids, options)
      for drafted, ids in zip(drafts, known, strict=True)
    ]

  def _tiled(self, photo, options, progress):
    """Segments a photo tile by tile, or whole if it is no larger than one."""
    if options.tile < self._parts.image_size:
      raise ValueError(
        f'tile is {options.tile}; it must be at least '
        f'{self._parts.image_size} pixels'
      )
    whole = dataclasses.replace(options, tile=None)
    cut = tiles.split(photo.shape[:2], options.tile)
    if len(cut) == 1:
      return self.segment_batch([photo], whole, progress=progress)[0]
    crops = [tiles.crop(photo, tile.box) for tile in cut]
    plain = dataclasses.replace(whole, min_area=0.0, split_disconnected=False)
    parts = self.segment_batch(crops, plain, progress=progress)
    return tiles.joined(parts, cut, options)

  def _drafts(self, photos, starts, options, progress):
    """A draft of each photo. That of the last one is kept, for more marks."""
    key = None
    if len(photos) == 1 and starts[0] is None:
      later = {'min_area': 0.0, 'split_disconnected': False, 'strength': 1.0}
      digest = hashlib.blake2b(photos[0]).digest()
      key = digest, photos[0].shape, dataclasses.replace(options, **later)
      last = self._last
      if last is not None and last[0] == key:
        return last[1]
    # Close-ups are drawn after all photos.
    seen, boxes = list(zip(photos, starts, strict=True)), []
    wanted = options.closeups and options.num_samples > 1
    for photo, start in seen[:]:
      size, side = photo.shape[:2], self._parts.code_size
      joined = wanted and answer.follows_edges(size, side, options)
      boxes.append(closeups.boxes(size) if joined else [])
      for top, left, bottom, right in boxes[-1]:
        part = np.s_[top:bottom, left:right]
        seen.append((photo[part], None if start is None else start[part]))
    counts = [options.num_samples] * len(photos)
    counts += [options.closeups] * (len(seen) - len(photos))
    drawn = self._draw(seen, counts, options, progress)
    closer = (codes for codes, _ in drawn[len(photos) :])
    drafts = [
      answer.draft(photo, *found, options, [(box, next(closer)) for box in own])
      for photo, found, own in zip(photos, drawn, boxes, strict=False)
    ]
    if key is not None:
      self._last = key, drafts
    return drafts

  def _draw(self, seen, counts, options, progress):
    """(codes int32 [N, g, g'], certain) of each (image, start), see draft."""
    parts, done = self._parts, 0
    begins = any(start is not None for _, start in seen)
    jobs = draw_samples.Jobs(
      [functools.partial(self._example, *one) for one in seen],
      counts,
      options.seed,
      shared_noise=True,
      strength=options.strength if begins else None,
    )
    drawn, sampler = [[] for _ in seen], self.sampler_options(options)
    with self._drawing:  # two batches at once may not fit the devices
      if (sampler, begins) not in self._functions:
        found = draw_samples.make_functions(parts, sampler, self._mesh, begins)
        of = self._found.config.to_json(), sampler, begins, self.batch_size
        kept = [programs.kept(f, i, *of) for i, f in enumerate(found)]
        self._functions[sampler, begins] = draw_samples.Functions(*kept)
      functions = self._functions[sampler, begins]
      for i, example, x_hat in draw_samples.draw(
        functions, self._found.params, jobs, self._mesh, self.batch_size
      ):
        height, width = example['size']
        drawn[i].append(x_hat[:, :height, :width])
        done += len(x_hat)
        if progress:
          progress((done, sum(counts)))
    found = []
    for x_hat in map(np.concatenate, drawn):
      codes, certain = np.asarray(parts.codec.decode(x_hat)), None
      if len(codes) == 1:
        certain = np.asarray(parts.codec.probabilities(x_hat[0])).max(axis=-1)
      found.append((codes, certain))
    return found

  def _example(self, image, start):
    """A photo as the network sees it, which nobody annotated."""
    parts, blank = self._parts, np.zeros(image.shape[:2], np.int32)
    record = {'name': '', 'image': image, 'id_maps': [blank]}
    example = transforms.evaluation_example(
      record, parts.image_size, parts.code_size
    )
    if start is not None:
      height, width = example['size']
      small = transforms.resize_ids(start, (height, width))
      if parts.palette is not None:
        codes = palette.assign_codes(small, parts.palette)
      else:
        rng = np.random.default_rng(0)
        codes = palette.assign_random_codes(small, parts.codec.num_codes, rng)
      example['start'] = np.full((parts.code_size,) * 2, -1, np.int32)
      example['start'][:height, :width] = codes
    return example

  def sampler_options(
    self, options: AnswerOptions | None = None
  ) -> build.SamplerOptions:
    """How samples are drawn; what options leave open is as in the config."""
    options, found = options or AnswerOptions(), self._sampler
    if options.num_steps is not None:
      found = found._replace(num_steps=options.num_steps)
    if options.guidance_weight is not None:
      found = found._replace(guidance_weight=float(options.guidance_weight))
    return found

  @devices.jax_defaults()
  def export(self, path: str | pathlib.Path, **options: Any) -> None:
    """Writes sampler and parameters for programs without this package.

    Args:
      path: new folder to write to, see stablehlo.py.
      **options: num_steps and guidance_weight, see AnswerOptions.

    Raises:
      FileExistsError, ValueError: see stablehlo.export.
    """
    sampler = self.sampler_options(AnswerOptions(**options))
    stablehlo.export(self._parts, self._found.params, sampler, path)
