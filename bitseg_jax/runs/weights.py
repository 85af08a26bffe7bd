"""Weights: of a run, or of a pretrained folder, which holds nothing of its run.

  model.safetensors  one tensor for each parameter, float32 or bfloat16, under
                     its path in the network, such as down_0_0_res/conv_in/bias
  config.json        the config of the run
  README.md          the model card

A folder on disk, one that comes with the package (bitseg_jax/pretrained/NAME)
and one on the Hugging Face Hub (hf://OWNER/NAME[@REVISION]) are read alike.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from bitseg_jax.data.outside import named, read_json
from bitseg_jax.runs import build, checkpoint, devices, schema
from bitseg_jax.runs.log import whole_file

WEIGHTS, CONFIG, CARD = FILES = 'model.safetensors', 'config.json', 'README.md'
DTYPES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16}
SHIPPED = pathlib.Path(__file__).parents[1] / 'pretrained'
DEFAULT = 'photos'  # where none is asked for
_CONTENT = 'bitseg_jax_content'  # digest of tensors and config, in the header

# Of the flag --checkpoint.
FLAG_HELP = (
  'Workdir of a run, a step of it, folder of a pretrained model, or '
  'hf://OWNER/NAME; or one of the package: photos, the default, or photos-free.'
)


class Weights(NamedTuple):
  """A model's parameters and where they are from."""

  params: Any  # float32, on the devices
  config: ConfigDict  # of the run, complete and checked
  step: int | None = None  # of the run; None for a pretrained model
  digest: str | None = None  # SHA-256 of the weights, or of the step's files


@devices.jax_defaults()
def read(
  name: str | pathlib.Path, kind: str = 'ema_params', expected: Any = None
) -> Weights:
  """Reads a model from a run or from a pretrained model, and checks it.

  Args:
    name: workdir of a run, whose newest whole step is taken; or
      <workdir>/checkpoints/<step>; or a pretrained folder; or the name of a
      model that comes with the package; or hf://OWNER/NAME[@REVISION].
    kind: 'ema_params' or 'params' of a run. A pretrained model has one only.
    expected: shapes, dtypes and shardings of the parameters; None for those of
      the model's own network, with a copy on every device.

  Raises:
    ValueError: it is damaged, or not of the network; or the kind is neither.
    OSError, ImportError: it is not there, or cannot be read or downloaded.
  """
  kinds = checkpoint.KINDS.values()
  if kind not in kinds:
    raise ValueError(f'kind is {kind!r}; choose one of {", ".join(kinds)}')
  folder = _find(name)
  run, step = checkpoint.run_and_step(folder)
  if step is not None or (run / 'checkpoints').is_dir():
    config = checkpoint.read_config(folder)
    step, params = checkpoint.read_params(
      folder, expected or _placed(config), kind
    )
    digest = checkpoint.read_digest(folder, step)
    return Weights(params, config, step, digest)
  config, params = _read_folder(folder, expected)
  with open(folder / WEIGHTS, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return Weights(params, config, None, digest)


def _placed(config, like=None):
  like = like or build.abstract_params(config)
  return devices.placed(like, devices.make_mesh())


def shipped() -> list[str]:
  """Names of the models that come with the package."""
  return sorted(path.parent.name for path in SHIPPED.glob(f'*/{WEIGHTS}'))


def is_shipped(name: str | pathlib.Path) -> bool:
  """Whether a name is of the package's model, and of no model in a folder."""
  files = (pathlib.Path(name, n) for n in (CONFIG, 'checkpoints'))
  return str(name) in shipped() and not any(file.exists() for file in files)


def _find(name):
  """The folder of a pretrained model, downloaded where it is not yet here."""
  if is_shipped(name):
    return SHIPPED / str(name)
  if pathlib.Path(name).is_dir():
    return pathlib.Path(name)
  if not str(name).startswith('hf://'):
    raise FileNotFoundError(
      f'{name}: no such folder, and no model of this name comes with the '
      f'package, which has {", ".join(shipped()) or "none"}'
    )
  parts = re.fullmatch(r'hf://([\w.-]+/[\w.-]+)(?:@(\S+))?', str(name))
  if not parts:
    raise ValueError(f'{name} is not of the form hf://OWNER/NAME[@REVISION]')
  try:
    import huggingface_hub as hub  # not all who have this have that library

    options = {'revision': parts[2], 'allow_patterns': list(FILES)}
    return pathlib.Path(hub.snapshot_download(parts[1], **options))
  except ImportError as error:
    raise ImportError(
      f'{name} needs huggingface_hub; pip install huggingface_hub'
    ) from error
  except Exception as error:  # of many types, some of the library below it
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise OSError(
      f'{name} cannot be had from the Hugging Face Hub: {reason[:300]}'
    ) from error


def _read_folder(folder, expected):
  """(config, parameters as expected) of a pretrained model, checked."""
  path = folder / WEIGHTS
  for file in (folder / CONFIG, path):
    if not file.is_file():
      raise FileNotFoundError(f'{file} is missing, and {folder} holds no run')
  with named(folder / CONFIG, 'no config'):
    config = schema.complete(read_json(folder / CONFIG))
  tensors = read_tensors(path)
  with safetensors.safe_open(path, 'numpy') as file:
    content = (file.metadata() or {}).get(_CONTENT)
  # What earlier versions wrote has no digest.
  if content not in (None, _content(folder, tensors)):
    raise ValueError(f'{path}, or {CONFIG} beside it, was changed since')
  params = lambda: unflatten_dict(tensors, sep='/')
  # The tests compare the shipped weights with their network: that is slow.
  like = params() if content and folder.parent == SHIPPED else None
  expected = expected or _placed(config, like)
  check_tensors(tensors, _flat_shapes(expected), path, DTYPES)
  put = lambda w, like: jax.make_array_from_callback(
    w.shape, like.sharding, lambda index: w[index].astype(np.float32)
  )
  return config, jax.tree.map(put, params(), expected)


def save(
  folder: str | pathlib.Path,
  params: Any,
  config: ConfigDict,
  card: str = '',
  dtype: str = 'bfloat16',
) -> None:
  """Writes a pretrained folder, see above, whole or not at all.

  Args:
    folder: to be made, or empty.
    params, config: float32 parameters of a run, and its config.
    card: Markdown about the model: what it was trained on, how well it does.
    dtype: 'float32', which keeps every bit, or 'bfloat16', half the size.

  Raises:
    ValueError: the dtype is neither, or the parameters are not finite or not
      those of the network.
    FileExistsError: the folder holds something.
  """
  if dtype not in DTYPES:
    raise ValueError(f'dtype is {dtype!r}; choose one of {", ".join(DTYPES)}')
  folder = pathlib.Path(folder).resolve()
  if folder.exists() and not (folder.is_dir() and not os.listdir(folder)):
    raise FileExistsError(f'{folder} is there already; give another folder')
  settings = schema.without_paths(config)
  config = schema.complete(settings)
  cast = lambda tensor: np.asarray(tensor).astype(DTYPES[dtype])
  tensors = flatten_dict(jax.tree.map(cast, params), sep='/')
  shapes = _flat_shapes(build.abstract_params(config))
  check_tensors(tensors, shapes, 'the parameters', DTYPES)
  new = folder.with_name(f'.{folder.name}.{os.getpid()}.partly')
  try:
    new.mkdir(parents=True)
    (new / CONFIG).write_text(json.dumps(settings, indent=2) + '\n')
    (new / CARD).write_text(_card(folder.name, tensors, config, card), 'utf-8')
    write_tensors(new / WEIGHTS, tensors, {_CONTENT: _content(new, tensors)})
    new.rename(folder)
  finally:
    shutil.rmtree(new, ignore_errors=True)


def read_tensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a safetensors file; ValueError if it is none, or damaged."""
  with named(path, 'damaged, or no safetensors file'):
    return safetensors.numpy.load_file(path)


def write_tensors(
  path: str | pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  metadata: dict[str, str],
) -> None:
  """Writes a safetensors file, whole or not at all."""
  # The library would write transposed arrays as they lie in memory.
  whole = {name: np.ascontiguousarray(w) for name, w in tensors.items()}
  with whole_file(path, 'wb') as file:
    file.write(safetensors.numpy.save(whole, metadata))
    file.flush()
    os.fsync(file.fileno())


def check_tensors(
  tensors: Mapping[str, np.ndarray],
  shapes: Mapping[str, tuple[int, ...]],
  where: str | pathlib.Path,
  dtypes: Mapping[str, Any],
) -> None:
  """Raises ValueError unless tensors, by name, are finite and fit a network."""
  for name in {**shapes, **tensors}:
    tensor, shape = tensors.get(name), shapes.get(name)
    if tensor is None:
      wrong = 'is missing'
    elif shape is None:
      wrong = 'is none that the network has'
    elif tensor.shape != shape:
      wrong = f'has shape {[*tensor.shape]}, but that of the network {[*shape]}'
    elif tensor.dtype.name not in dtypes:
      wrong = f'is {tensor.dtype}, not {" or ".join(dtypes)}'
    elif not np.isfinite(tensor).all():
      wrong = 'has values that are not finite'
    else:
      continue
    raise ValueError(f'{where}: tensor {name} {wrong}')


def _flat_shapes(params):
  flat = flatten_dict(params, sep='/')
  return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def _content(folder, tensors):
  digest = hashlib.sha256((folder / CONFIG).read_bytes())
  for name in sorted(tensors):
    digest.update(f'{name} {tensors[name].dtype}'.encode())
    digest.update(np.ascontiguousarray(tensors[name]).tobytes())
  return digest.hexdigest()


def _card(name, tensors, config, card):
  """The README.md of a pretrained model, as the Hugging Face Hub shows it."""
  count = sum(tensor.size for tensor in tensors.values())
  return f"""---
library_name: bitseg_jax
pipeline_tag: image-segmentation
---

# {name}

{card.strip() or 'Nobody has described this model yet.'}

The model divides a photo into entities without naming them, by diffusion over
analog bits. It has {count:,} parameters and sees photos as squares of
{config.data.image_size} pixels, in which it tells at most
{config.codes.num_codes} entities apart.

    bitseg predict --checkpoint=FOLDER --input='photos/*.jpg' --output=segmented
"""
