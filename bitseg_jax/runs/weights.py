"""Where a model comes from: a run, or a pretrained model; both read alike."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from bitseg_jax import codec
from bitseg_jax.runs import checkpoint, devices, pretrained

# Of the flag --checkpoint.
FLAG_HELP = (
  'Workdir of a run, a step of it, folder or name of a pretrained model, or '
  'hf://OWNER/NAME. Without it, the model that comes with the package is used.'
)


def given_or_default(checkpoint: str | None) -> str:
  """Returns what --checkpoint says, or else names the package's own model."""
  if checkpoint:
    return checkpoint
  print(
    f'no --checkpoint: using the model {pretrained.DEFAULT!r} that comes with '
    'the package; its card says what it was trained on: '
    f'{pretrained.SHIPPED / pretrained.DEFAULT / pretrained.CARD}',
    flush=True,
  )
  return pretrained.DEFAULT


class Weights(NamedTuple):
  """A model's parameters and where they are from.

  Attributes:
    params: float32 parameters, on the devices.
    config: of the run, complete and checked.
    step: of the run; None for a pretrained model.
    digest: tells them from any others, see pretrained.py and, of a run,
      checkpoint.read_digest.
  """

  params: Any
  config: ConfigDict
  step: int | None = None
  digest: str | None = None

  @property
  def origin(self) -> str:
    """In words, for messages."""
    if self.step is None:
      return f'pretrained weights {self.digest[:12]}'
    return f'step {self.step}'


def read(
  name: str | pathlib.Path,
  kind: str = 'ema_params',
  expected: Any = None,
) -> Weights:
  """Reads a model from a run or from a pretrained model.

  Args:
    name: workdir of a run, whose newest whole step is taken; or
      <workdir>/checkpoints/<step>; or what pretrained.load_pretrained takes.
    kind: 'ema_params' or 'params' of a run. A pretrained model has one only.
    expected: shapes, dtypes and shardings that the parameters must have; None
      for those of the model's own network, with a copy on every device.

  Returns:
    The weights.

  Raises:
    ValueError: if kind is neither, or what is there is damaged.
    OSError: if it is not there, or cannot be read.
  """
  if pretrained.is_pretrained(name):
    return read_pretrained(name, expected)
  if not pathlib.Path(name).exists():
    pretrained.find(name)  # raises, and lists what there is
  return read_checkpoint(name, kind, expected)


def read_checkpoint(
  path: str | pathlib.Path, kind: str = 'ema_params', expected: Any = None
) -> Weights:
  """Reads a run's newest whole step, or one step; see `read`."""
  kinds = checkpoint.KINDS.values()
  if kind not in kinds:
    raise ValueError(f'kind is {kind!r}; choose one of {", ".join(kinds)}')
  config = checkpoint.read_config(path)
  if expected is None:
    expected = _placed(config)
  step, params = checkpoint.read_params(path, expected, kind)
  return Weights(params, config, step, checkpoint.read_digest(path, step))


def read_pretrained(name: str | pathlib.Path, expected: Any = None) -> Weights:
  """Reads a pretrained model; see `read`."""
  found = pretrained.load_pretrained(name, expected)
  if expected is None:
    expected = _placed(found.config)
  params = jax.tree.map(_put, found.params, expected)
  return Weights(params, found.config, None, found.digest)


def read_to_start(
  name: str | pathlib.Path, config: ConfigDict, expected: Any
) -> Weights:
  """Reads a model for a run to start from, whose network may also see prompts.

  Args:
    name: see `read`.
    config: of the new run.
    expected: shapes, dtypes and shardings of its parameters.

  Returns:
    The weights. The channels for prompts, where the model has none, are zero,
    so that it begins by doing what it did.

  Raises:
    ValueError, OSError: see `read`.
  """
  if config.diffusion.prompt_rate:
    found = read(name)
    if not found.config.diffusion.prompt_rate:
      return _with_marks(name, found, config, expected)
  try:
    return read(name, expected=expected)
  except (ValueError, OSError) as error:
    if config.diffusion.prompt_rate or not _sees_marks(name):
      raise
    raise ValueError(
      f'{name} has learned to see marks; give '
      '--config.diffusion.prompt_rate=0.5, or another share of images with them'
    ) from error


def _sees_marks(name):
  if pretrained.is_pretrained(name):
    config = pretrained.load_pretrained(name).config
  else:
    config = checkpoint.read_config(name)
  return config.diffusion.prompt_rate > 0


def _with_marks(name, found, config, expected):
  """Adds input channels for marks, which come last of a pixel's, with zeros."""
  params = jax.tree.map(np.asarray, found.params)
  kernel = params['stem']['kernel']  # [3, 3, pixels of a patch * channels, D]
  shape = (*kernel.shape[:2], -1, _inputs(found.config), kernel.shape[-1])
  more = max(0, _inputs(config) - shape[3])
  wider = np.pad(
    kernel.reshape(shape), [(0, more * (i == 3)) for i in range(5)]
  )
  params['stem']['kernel'] = wider.reshape(*kernel.shape[:2], -1, shape[-1])
  old, new = (c.diffusion.self_conditioning for c in (found.config, config))
  shapes = jax.tree.map(np.shape, params)
  if old != new or shapes != jax.tree.map(np.shape, expected):
    raise ValueError(
      f'{name} holds another network than config.model, config.codes and '
      'config.diffusion describe'
    )
  return found._replace(params=jax.tree.map(_put, params, expected))


def _inputs(config):
  """Counts a pixel's input channels: z_t, x_before, the photo and the marks."""
  codes = codec.make_codec(config.codes.encoding, config.codes.num_codes)
  diff = config.diffusion
  return 3 + codes.channels * (
    1 + diff.self_conditioning + (diff.prompt_rate > 0)
  )


def _put(array, like):
  return jax.make_array_from_callback(
    array.shape, like.sharding, lambda index: np.asarray(array[index])
  )


def _placed(config):
  shapes = pretrained.abstract_params(config)
  return devices.placed(shapes, devices.make_mesh())
