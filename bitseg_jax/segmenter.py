"""A trained model behind one object: photos in, segmentations out."""

import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageOps

from bitseg_jax import checkpoint, evaluate, experiment, metrics, sharding
from bitseg_jax.data import pipeline, transforms

Photo = np.ndarray | Image.Image


class Segmentation(NamedTuple):
  """What a photo was cut into, at the photo's own size.

  Attributes:
    id_map: int32 [H, W], ids 0, 1, ... without gaps. With several samples it
      is their medoid: the one with the highest mean ARI with the others (the
      first of equals; of two samples the first).
    samples: int32 [N, H, W], likewise; ids of one sample mean nothing in
      another.
    uncertainty: float32 [H, W] in [0, 1]. Of one sample: 1 - the probability
      of the likeliest code (Eq. 3). Of several: how much they disagree, see
      `disagreement`.
  """

  id_map: np.ndarray
  samples: np.ndarray
  uncertainty: np.ndarray


class Segmenter:
  """Draws segmentations of photos from one trained model.

  The result depends on photo, seed and settings alone: every batch has the
  same size, filled up where photos are missing, and sample n of every photo
  starts from the same noise. So the sampler is compiled once for each
  (num_steps, guidance_weight) and then kept.
  """

  def __init__(
    self,
    parts: experiment.Experiment,
    params: Any,
    settings: ConfigDict,
    batch_size: int | None = None,
  ):
    """Keeps the parts; see `from_checkpoint`, which gathers them.

    Args:
      parts: the experiment.
      params: parameters of its model.
      settings: the config's `sample` section.
      batch_size: samples drawn at once over all devices, rounded up to a
        multiple of their number. None: 1 a device on CPU, where more is no
        faster, else 8.

    Raises:
      ValueError: if batch_size is not positive.
    """
    devices = jax.device_count()
    if batch_size is None:
      batch_size = devices * (1 if jax.default_backend() == 'cpu' else 8)
    _at_least_one('batch_size', batch_size)
    self.batch_size = -(-batch_size // devices) * devices
    self._parts = parts
    self._params = params
    self._settings = settings
    self._mesh = sharding.make_mesh()
    self._sample_fns = {}
    self._confidence = jax.jit(
      lambda x_hat: jnp.max(parts.codec.probabilities(x_hat), axis=-1)
    )

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
    if kind not in evaluate.KINDS:
      raise ValueError(
        f'kind is {kind!r}; choose one of {", ".join(evaluate.KINDS)}'
      )
    config = ConfigDict(checkpoint.read_config(path))
    parts = experiment.build(config)
    abstract = experiment.abstract_params(parts, sharding.make_mesh())
    _, params = checkpoint.read_params(path, abstract, kind)
    return cls(parts, params, config.sample, batch_size)

  def segment(
    self,
    image: Photo,
    num_samples: int = 1,
    seed: int = 0,
    num_steps: int | None = None,
    guidance_weight: float | None = None,
  ) -> Segmentation:
    """Segments one photo, see `segment_batch`."""
    return self.segment_batch(
      [image], num_samples, seed, num_steps, guidance_weight
    )[0]

  def segment_batch(
    self,
    images: Sequence[Photo],
    num_samples: int = 1,
    seed: int = 0,
    num_steps: int | None = None,
    guidance_weight: float | None = None,
  ) -> list[Segmentation]:
    """Segments photos of any sizes.

    Args:
      images: uint8 [H, W, 3] RGB or [H, W] grey, or Pillow images with 8 bits
        a channel.
      num_samples: N, samples a photo.
      seed: of the samples.
      num_steps: steps of the sampler; None as in the config of the run.
      guidance_weight: 0 is off; None as in the config of the run.

    Returns:
      One segmentation a photo.

    Raises:
      ValueError: a photo is none of the above, or a number is not positive.
    """
    _at_least_one('num_samples', num_samples)
    sample_fn = self._sample_fn(num_steps, guidance_weight)
    photos = [_to_rgb(image) for image in images]
    examples = [self._example(photo) for photo in photos]
    drawn = [([], []) for _ in photos]  # codes and confidence, by sample
    jobs = list(itertools.product(range(len(photos)), range(num_samples)))
    for start in range(0, len(jobs), self.batch_size):
      batch = jobs[start : start + self.batch_size]
      filled = batch + batch[:1] * (self.batch_size - len(batch))
      rows = [examples[i] for i, _ in filled]
      x_hat = sample_fn(
        self._params,
        *sharding.put_batch(
          tuple(np.stack([e[k] for e in rows]) for k in ('image', 'size')),
          self._mesh,
        ),
        _keys(seed, [n for _, n in filled]),
      )
      codes = np.asarray(self._parts.codec.decode(np.asarray(x_hat)))
      confidence = np.asarray(self._confidence(x_hat))
      for row, (i, _) in enumerate(batch):
        height, width = examples[i]['size']
        for kept, values in zip(drawn[i], (codes, confidence), strict=True):
          kept.append(values[row, :height, :width])
    return [
      _assemble(np.stack(codes), confidence[0], photo.shape[:2])
      for photo, (codes, confidence) in zip(photos, drawn, strict=True)
    ]

  def _example(self, photo):
    """Photo as in evaluation; nobody annotated it."""
    blank = np.zeros(photo.shape[:2], np.int32)
    record = {'name': '', 'image': photo, 'id_maps': [blank]}
    return pipeline.evaluation_example(record, self._parts.image_size)

  def _sample_fn(self, num_steps, guidance_weight) -> Callable[..., jax.Array]:
    settings = ConfigDict(self._settings.to_dict())
    if num_steps is not None:
      settings.num_steps = num_steps
    if guidance_weight is not None:
      settings.guidance_weight = float(guidance_weight)
    _at_least_one('num_steps', settings.num_steps)
    key = settings.num_steps, settings.guidance_weight
    if key not in self._sample_fns:
      self._sample_fns[key] = evaluate.make_sample_fn(
        self._parts, settings, self._mesh
      )
    return self._sample_fns[key]


def disagreement(id_maps: np.ndarray) -> np.ndarray:
  """How differently segmentations see each pixel, whatever their ids.

  1 - the IoU of the two segments a pixel lies in, mean over pairs of maps.

  Args:
    id_maps: integers [N, H, W], N at least 2, without IGNORE_ID.

  Returns:
    float32 [H, W] in [0, 1], 0 where a pixel's segments are the same in all.
  """
  pairs = list(itertools.combinations(id_maps, 2))
  agreed = np.zeros(id_maps[0].shape)
  for first, second in pairs:
    table, rows, columns = metrics.contingency(first, second)
    iou = metrics.iou_matrix(table)
    agreed += iou[
      np.searchsorted(rows, first), np.searchsorted(columns, second)
    ]
  return (1 - agreed / len(pairs)).astype(np.float32)


def medoid(id_maps: np.ndarray) -> int:
  """Index of the map with the highest mean ARI with the others.

  Args:
    id_maps: integers [N, H, W], without IGNORE_ID.

  Returns:
    Which one; the first of equals.
  """
  total = np.zeros(len(id_maps))
  for i, j in itertools.combinations(range(len(id_maps)), 2):
    total[[i, j]] += metrics.adjusted_rand_index(id_maps[i], id_maps[j])
  return int(total.argmax())


def _assemble(codes, confidence, size):
  """Segmentation at a photo's size of codes [N, h, w] at the model's."""
  if len(codes) == 1:
    uncertainty = 1 - confidence
  else:
    uncertainty = disagreement(codes)
  samples = np.stack([_compact(transforms.resize_ids(c, size)) for c in codes])
  # One channel of float32: Pillow interpolates it as it is.
  resized = Image.fromarray(uncertainty).resize(
    size[::-1], Image.Resampling.BILINEAR
  )
  return Segmentation(
    id_map=samples[medoid(codes)],
    samples=samples,
    uncertainty=np.clip(np.asarray(resized), 0, 1),
  )


def _compact(id_map):
  """Renames ids to 0, 1, ... in their order."""
  # Codes are small, photos large: counting is much faster than sorting.
  present = np.bincount(id_map.ravel()) > 0
  return (np.cumsum(present) - 1).astype(np.int32)[id_map]


def _keys(seed, samples):
  key = jax.random.key(seed)
  return jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.array(samples))


def _to_rgb(image):
  """Photo as uint8 [H, W, 3]."""
  if isinstance(image, Image.Image):
    if image.mode.startswith(('I', 'F')):
      raise ValueError(
        f'image has mode {image.mode}, more than 8 bits a channel; convert it '
        'to 8 bits'
      )
    image = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
  image = np.asarray(image)
  if image.ndim == 2:
    image = np.repeat(image[..., None], 3, axis=-1)
  if (
    image.dtype != np.uint8
    or image.ndim != 3
    or image.shape[-1] != 3
    or not image.size
  ):
    raise ValueError(
      'image must be uint8 [H, W, 3] RGB or [H, W] grey, or a Pillow image, '
      f'but is {image.dtype} {list(image.shape)}'
    )
  return image


def _at_least_one(name, value):
  if value < 1:
    raise ValueError(f'{name} is {value}; it must be at least 1')
