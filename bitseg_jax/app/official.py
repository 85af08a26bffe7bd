"""Weights of the authors' PyTorch code (TowardsDiff), both ways, bit for bit.

Its state dict holds the parameters of the same network under other names and in
PyTorch's layout: convolutions [out, in, h, w], dense layers [out, in], those of
the attention [out, in, 1]. The order of q, k and v is the same in both.
"""

import pathlib
import pickle
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from bitseg_jax.runs import weights

# What a float32 parameter can be made of without loss.
_DTYPES = {**weights.DTYPES, 'float16': np.float16}
# In every official state dict; what stands before it names the state dict.
_FIRST = 'time_embed.0.weight'
_WHOLE = 'the whole file'
# Modules in a block, ours and the official ones.
_INNER = {
  'norm_in': 'in_layers.0',
  'conv_in': 'in_layers.2',
  'time': 'emb_layers.1',
  'norm_out': 'out_layers.0',
  'conv_out': 'out_layers.3',
  'skip': 'skip_connection',
  'norm': 'norm',
  'qkv': 'qkv',
  'out': 'proj_out',
}


def check_config(config: ConfigDict) -> None:
  """Raises ValueError for a config whose network the official code lacks."""
  needed = {'name': 'unet', 'patch_size': 1, 'encoder': 'none'}
  for name, value in needed.items():
    if config.model[name] != value:
      raise ValueError(
        f'config.model.{name} is {config.model[name]!r}; the official network '
        f'needs {value!r}'
      )
  if not config.model.attention_levels:
    raise ValueError(
      'config.model.attention_levels is (); the official network needs at '
      'least one level, with which the middle has attention too'
    )


def official_names(flat: Collection[str], config: ConfigDict) -> dict[str, str]:
  """Official name of each of our parameters, by our flat name.

  Args:
    flat: ours, such as down_0_0_res/conv_in/kernel.
    config: of the network; raises ValueError as check_config does.
  """
  check_config(config)
  model = config.model
  levels, blocks = range(len(model.channel_mults)), model.num_res_blocks
  modules = {  # official ones by ours
    'time_0': 'time_embed.0',
    'time_1': 'time_embed.2',
    'stem': 'input_blocks.0.0',
    'middle_0_res': 'middle_block.0',
    'middle_attn': 'middle_block.1',
    'middle_1_res': 'middle_block.2',
    'norm_out': 'out.1',
    'conv_out': 'out.3',
  }
  n = 1
  for level in levels:
    for i in range(blocks):
      modules[f'down_{level}_{i}_res'] = f'input_blocks.{n + i}.0'
      modules[f'down_{level}_{i}_attn'] = f'input_blocks.{n + i}.1'
    n += blocks + 1
    modules[f'down_{level}/conv'] = f'input_blocks.{n - 1}.0.op'
  n = 0
  for level in reversed(levels):
    for i in range(blocks + 1):
      modules[f'up_{level}_{i}_res'] = f'output_blocks.{n + i}.0'
      modules[f'up_{level}_{i}_attn'] = f'output_blocks.{n + i}.1'
    n += blocks + 1
    # The last block of a level ends in the upsampling, after any attention.
    place = 2 if level in model.attention_levels else 1
    modules[f'up_{level}/conv'] = f'output_blocks.{n - 1}.{place}.conv'
  names = {}
  for name in flat:
    module, leaf = name.rsplit('/', 1)
    block, _, inner = module.partition('/')
    theirs = modules.get(module) or f'{modules[block]}.{_INNER[inner]}'
    names[name] = f'{theirs}.{"bias" if leaf == "bias" else "weight"}'
  return names


def from_official(
  tensors: Mapping[str, np.ndarray],
  expected: Any,
  config: ConfigDict,
  where: str | pathlib.Path = 'the state dict',
) -> Any:
  """Makes our parameters of an official state dict.

  Args:
    tensors: the state dict, by name; float32, or 16 bits.
    expected: our parameters or their shapes, see weights.abstract_params.
    config: of a run, says what the network is made of.
    where: the tensors are from, for messages.

  Returns:
    Nested dict of float32 parameters.

  Raises:
    ValueError: one line; see check_config and weights.check_tensors.
  """
  shapes = weights.flatten_shapes(expected)
  names = official_names(shapes, config)
  wanted = {names[ours]: _turned(ours, shape) for ours, shape in shapes.items()}
  weights.check_tensors(tensors, wanted, where, _DTYPES)
  flat = {}
  for ours, theirs in names.items():
    w = tensors[theirs]
    if ours.endswith('/kernel'):
      # [out, in, h, w], [out, in, 1] and [out, in] to channels last.
      w = np.moveaxis(w, (0, 1), (-1, -2))
    flat[ours] = np.ascontiguousarray(w.reshape(shapes[ours]), np.float32)
  return unflatten_dict(flat, sep='/')


def to_official(params: Any, config: ConfigDict) -> dict[str, np.ndarray]:
  """Makes an official state dict of our parameters; inverts from_official."""
  flat = flatten_dict(params, sep='/')
  names = official_names(flat, config)
  tensors = {}
  for ours, theirs in names.items():
    w = np.asarray(flat[ours])
    if ours.endswith('/kernel'):
      w = np.moveaxis(w, (-1, -2), (0, 1))
    w = w.reshape(_turned(ours, flat[ours].shape))
    tensors[theirs] = np.ascontiguousarray(w)
  return tensors


def _turned(name, shape):
  """Official shape of one of our parameters."""
  if not name.endswith('/kernel'):
    return tuple(shape)
  *window, inputs, outputs = shape
  if name.split('/')[0].endswith('_attn'):
    window = [1]
  return (outputs, inputs, *window)


def read_file(
  path: str | pathlib.Path, key: str | None = None
) -> tuple[str, dict[str, np.ndarray]]:
  """Reads the state dict in a file, or one of several.

  Args:
    path: .safetensors; or what torch.save wrote, a state dict or nested dicts
      with some in them.
    key: which one, as the message names it that lists them; None for the only
      one.

  Returns:
    (its key, tensors by official name).

  Raises:
    ValueError: the file is damaged or holds no official state dict, or several
      and no key, or not this one.
    OSError: it cannot be read.
    ImportError: it needs torch, which is not installed.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file')
  is_ours = path.suffix == '.safetensors'
  flat = weights.read_tensors(path) if is_ours else dict(_read_torch(path))
  ends = (name for name in flat if f'.{name}'.endswith(f'.{_FIRST}'))
  prefixes = {name.removesuffix(_FIRST) for name in ends}
  found = {prefix.rstrip('.') or _WHOLE: prefix for prefix in prefixes}
  known = ', '.join(sorted(found))
  if not found:
    raise ValueError(
      f'{path} holds no official state dict: no tensor is called {_FIRST}; it '
      f'has {", ".join(list(flat)[:3]) or "no tensors"}'
    )
  if key is None and len(found) > 1:
    raise ValueError(f'{path} holds several; choose with --key from {known}')
  if key not in (None, *found):
    raise ValueError(f'{path} has no --key={key}; it has {known}')
  key = key or next(iter(found))
  chosen = found[key]
  others = tuple(p for p in prefixes if len(p) > len(chosen))
  return key, {
    name.removeprefix(chosen): tensor
    for name, tensor in flat.items()
    if name.startswith(chosen) and not name.startswith(others)
  }


def write_file(
  path: str | pathlib.Path, tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes a state dict as a new .safetensors, whole or not at all."""
  path = pathlib.Path(path)
  if path.suffix != '.safetensors':
    raise ValueError(f'{path} must end in .safetensors')
  if path.exists():
    raise FileExistsError(f'{path} is there already; give another name')
  path.parent.mkdir(parents=True, exist_ok=True)
  # 'pt' is what PyTorch's own readers ask for.
  weights.write_tensors(path, tensors, {'format': 'pt'})


def _read_torch(path):
  try:
    import torch  # only these files need it
  except ImportError as error:
    raise ImportError(
      f'{path} needs torch; pip install torch, or convert it to .safetensors'
    ) from error
  try:
    # Nothing but tensors and plain values: a pickle could run any program.
    return _flatten(torch.load(path, map_location='cpu', weights_only=True))
  except pickle.UnpicklingError as error:
    raise ValueError(
      f'{path} is damaged, or holds more than tensors and plain values, which '
      'could run a program and is refused; save its state dict alone'
    ) from error
  except OSError:
    raise
  except Exception as error:  # torch has no common type for them
    reason = ' '.join(str(error).split())[:200]
    raise ValueError(
      f'{path} is damaged, or no file of torch: {reason}'
    ) from error


def _flatten(tree, prefix=''):
  """(name, array) of all tensors in nested dicts, names joined by dots."""
  for name, value in tree.items() if isinstance(tree, Mapping) else ():
    if hasattr(value, 'detach'):
      # numpy has no bfloat16; float32 holds all values of the shorter floats.
      short = value.is_floating_point() and value.element_size() < 4
      value = value.detach()
      yield f'{prefix}{name}', (value.float() if short else value).numpy()
    else:
      yield from _flatten(value, f'{prefix}{name}.')
