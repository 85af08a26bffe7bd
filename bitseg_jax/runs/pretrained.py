"""Weights that travel: a folder that holds a model and nothing of its run.

  model.safetensors  one tensor for each parameter, float32 or bfloat16, under
                     its path in the network, such as down_0_0_res/conv_in/bias
  config.json        the config of the run
  README.md          the model card

A folder on disk, one that comes with the package (bitseg_jax/pretrained/NAME)
and one on the Hugging Face Hub (hf://OWNER/NAME[@REVISION]) are read alike.
"""

import contextlib
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

from bitseg_jax.data.outside import read_json
from bitseg_jax.runs import build, checks, model_card
from bitseg_jax.runs.log import whole_file

WEIGHTS, CONFIG, CARD = FILES = 'model.safetensors', 'config.json', 'README.md'
DTYPES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16}
SHIPPED = pathlib.Path(__file__).parents[1] / 'pretrained'
DEFAULT = 'photos'  # where none is asked for
_HUB = 'hf://'
# Digests in the header of the tensors: of the other files as they were written,
# and of the tensors and the config, which are compared with it when read.
_MARK, _CONTENT = 'bitseg_jax', 'bitseg_jax_content'


class Pretrained(NamedTuple):
  """What a folder holds.

  Attributes:
    params: float32 parameters, on the host.
    config: of the run, complete and checked.
    digest: SHA-256 of model.safetensors, in hexadecimal.
  """

  params: Any
  config: ConfigDict
  digest: str


def save_pretrained(
  folder: str | pathlib.Path,
  params: Any,
  config: ConfigDict,
  card: str = '',
  dtype: str = 'bfloat16',
) -> None:
  """Writes the folder that the module docstring describes, whole or not at all.

  Args:
    folder: to be made. One that an earlier call wrote, and nobody changed, is
      replaced.
    params: float32 parameters of the config's network.
    config: of the run.
    card: Markdown about the model: what it was trained on, how well it does.
    dtype: 'float32', which keeps every bit, or 'bfloat16', half the size.

  Raises:
    ValueError: the dtype is neither, or the parameters are not finite or not
      those of the network.
    FileExistsError: the folder holds something else.
  """
  if dtype not in DTYPES:
    raise ValueError(f'dtype is {dtype!r}; choose one of {", ".join(DTYPES)}')
  folder = pathlib.Path(folder).resolve()
  _check_replaceable(folder)
  settings = checks.without_paths(config)
  config = checks.complete(settings)
  tensors = {
    name: np.asarray(tensor).astype(DTYPES[dtype])
    for name, tensor in flatten_dict(params, sep='/').items()
  }
  shapes = flatten_shapes(abstract_params(config))
  check_tensors(tensors, shapes, 'the parameters', DTYPES)
  folder.parent.mkdir(parents=True, exist_ok=True)
  temporary = folder.with_name(f'.{folder.name}.{os.getpid()}.partly')
  shutil.rmtree(temporary, ignore_errors=True)
  try:
    temporary.mkdir()
    (temporary / CONFIG).write_text(json.dumps(settings, indent=2) + '\n')
    text = model_card.write(folder.name, tensors, config, card)
    (temporary / CARD).write_text(text, 'utf-8')
    marks = {_MARK: _mark(temporary), _CONTENT: _content(temporary, tensors)}
    write_tensors(temporary / WEIGHTS, tensors, marks)
    _move(temporary, folder)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def load_pretrained(
  name: str | pathlib.Path, expected: Any = None
) -> Pretrained:
  """Reads a pretrained model and checks every tensor of it.

  Args:
    name: a folder; or the name of a model that comes with the package; or
      hf://OWNER/NAME[@REVISION].
    expected: shapes that the parameters must have; None for those of the
      network that config.json describes.

  Returns:
    The model.

  Raises:
    FileNotFoundError: there is no such model, or a file of it is missing.
    ValueError: a file is damaged, or the tensors are not the network's.
    ImportError: hf:// needs huggingface_hub, which is not installed.
    OSError: a file cannot be read, or the Hub not be reached.
  """
  folder = find(name)
  for file in (CONFIG, WEIGHTS):
    if not (folder / file).is_file():
      raise FileNotFoundError(f'{folder / file} is missing')
  try:
    config = checks.complete(read_json(folder / CONFIG))
  except ValueError as error:
    raise ValueError(f'{folder / CONFIG} is no config: {error}') from error
  path = folder / WEIGHTS
  shapes = flatten_shapes(expected or abstract_params(config))
  tensors, expected_content = read_tensors(path), _metadata(path).get(_CONTENT)
  check_tensors(tensors, shapes, path, DTYPES)
  # What earlier versions wrote has no digest.
  if expected_content not in (None, _content(folder, tensors)):
    raise ValueError(f'{path}, or {CONFIG} beside it, was changed since')
  params = {name: w.astype(np.float32) for name, w in tensors.items()}
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return Pretrained(unflatten_dict(params, sep='/'), config, digest)


def is_pretrained(name: str | pathlib.Path) -> bool:
  """Whether a name is a pretrained model's, rather than that of a run."""
  path = pathlib.Path(name)
  if str(name).startswith(_HUB) or (path / WEIGHTS).is_file():
    return True
  if is_shipped(name):
    return True
  # One without weights is damaged, but no run either.
  return (path / CONFIG).is_file() and not (path / 'checkpoints').is_dir()


def shipped() -> list[str]:
  """Names of the models that come with the package."""
  return sorted(path.parent.name for path in SHIPPED.glob(f'*/{WEIGHTS}'))


def is_shipped(name):
  """Whether a name is of the package's model, not of a model in a folder."""
  folder = pathlib.Path(name)
  of_model = (folder / file for file in (CONFIG, WEIGHTS, 'checkpoints'))
  return str(name) in shipped() and not any(path.exists() for path in of_model)


def find(name: str | pathlib.Path) -> pathlib.Path:
  """Finds the folder of a pretrained model; see load_pretrained.

  A folder that only shares its name with a model of the package, such as one of
  photos, is not meant.
  """
  if str(name).startswith(_HUB):
    return _fetch(str(name))
  if is_shipped(name):
    return SHIPPED / str(name)
  if pathlib.Path(name).is_dir():
    return pathlib.Path(name)
  raise FileNotFoundError(
    f'{name}: no such folder, and no model of this name comes with the '
    f'package, which has {", ".join(shipped()) or "none"}'
  )


def _fetch(name):
  """The folder of a model on the Hub, downloaded where it is not yet here."""
  parts = re.fullmatch(r'hf://([\w.-]+/[\w.-]+)(?:@(\S+))?', name)
  if not parts:
    raise ValueError(f'{name} is not of the form hf://OWNER/NAME[@REVISION]')
  try:
    import huggingface_hub  # not all who have this have the Hub's library
  except ImportError as error:
    raise ImportError(
      f'{name} needs huggingface_hub; pip install bitseg-jax[hub]'
    ) from error
  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        parts[1], revision=parts[2], allow_patterns=list(FILES)
      )
    )
  except Exception as error:  # of many types, some of the library below it
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise OSError(
      f'{name} cannot be had from the Hugging Face Hub: {reason[:300]}'
    ) from error


def read_tensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a safetensors file.

  Raises:
    ValueError: it is no such file, or is damaged.
    OSError: it cannot be read.
  """
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (
    safetensors.SafetensorError,
    ValueError,
    TypeError,
    KeyError,
  ) as error:
    raise ValueError(
      f'{path} is damaged, or no safetensors file: {error}'
    ) from error


def write_tensors(
  path: str | pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  metadata: dict[str, str],
) -> None:
  """Writes a safetensors file."""
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
  """Compares tensors with what a network takes.

  Args:
    tensors: by name.
    shapes: all that there must be, by name.
    where: they are from, for the message.
    dtypes: that they may have, by name.

  Raises:
    ValueError: one line that names a tensor that is missing, too many, of
      another shape or dtype, or not finite.
  """
  say = lambda name, what: ValueError(f'{where}: tensor {name} {what}')
  for name, shape in shapes.items():
    if name not in tensors:
      raise say(name, 'is missing')
    if tensors[name].shape != shape:
      raise say(
        name,
        f'has shape {list(tensors[name].shape)}, but that of the network '
        f'{list(shape)}',
      )
  for name, tensor in tensors.items():
    if name not in shapes:
      raise say(name, 'is none that the network has')
    if tensor.dtype.name not in dtypes:
      raise say(name, f'is {tensor.dtype}, not {" or ".join(dtypes)}')
    if not np.isfinite(tensor).all():
      raise say(name, 'has values that are not finite')


def abstract_params(config: ConfigDict) -> Any:
  """Shapes and dtypes of the parameters of a config's network."""
  config = config.copy_and_resolve_references()
  # They do not depend on it, and not every machine has it.
  config.model.fused_attention = False
  parts = build.build(config)
  return jax.eval_shape(parts.init_params, jax.random.key(0))


def flatten_shapes(params: Any) -> dict[str, tuple[int, ...]]:
  """Shape of each parameter, or of each abstract one, by its flat name."""
  flat = flatten_dict(params, sep='/')
  return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def _check_replaceable(folder):
  """Only what save_pretrained wrote, and nobody changed since, is replaced."""
  if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
    return
  ours = False
  if folder.is_dir() and {p.name for p in folder.iterdir()} == set(FILES):
    with contextlib.suppress(safetensors.SafetensorError, OSError):
      ours = _metadata(folder / WEIGHTS).get(_MARK) == _mark(folder)
  if not ours:
    raise FileExistsError(
      f'{folder} holds something else than a pretrained model as it was '
      'written; give another folder'
    )


def _move(new, folder):
  """Gives a folder its name; what had it is deleted once that is done."""
  if not folder.exists():
    new.rename(folder)
    return
  replaced = new.with_suffix('.replaced')
  folder.rename(replaced)
  try:
    new.rename(folder)
  except OSError:
    replaced.rename(folder)
    raise
  shutil.rmtree(replaced)


def _mark(folder):
  both = b'\0'.join((folder / name).read_bytes() for name in (CONFIG, CARD))
  return hashlib.sha256(both).hexdigest()


def _content(folder, tensors):
  digest = hashlib.sha256((folder / CONFIG).read_bytes())
  for name in sorted(tensors):
    digest.update(f'{name} {tensors[name].dtype}'.encode())
    digest.update(np.ascontiguousarray(tensors[name]).tobytes())
  return digest.hexdigest()


def _metadata(path):
  with safetensors.safe_open(path, 'numpy') as file:
    return file.metadata() or {}
