"""Weights of the authors' PyTorch code (TowardsDiff), both ways, bit for bit.

Its state dict holds the parameters of the same network under other names and in
PyTorch's layout: convolutions [out, in, h, w], dense layers [out, in], those of
the attention [out, in, 1]. The order of q, k and v is the same in both.
"""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from bitseg_jax.data import outside
from bitseg_jax.runs import weights

# What a float32 parameter can be made of without loss.
_DTYPES = {**weights.DTYPES, 'float16': np.float16}
_FIRST = 'time_embed.0.weight'  # in every official state dict
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
  for name, value in ('name', 'unet'), ('patch_size', 1), ('encoder', 'none'):
    if config.model[name] != value:
      raise ValueError(
        f'config.model.{name} is {config.model[name]!r}; the official network '
        f'needs {value!r}'
      )
  if not config.model.attention_levels:  # or its middle would have none
    raise ValueError(
      'config.model.attention_levels is (); the official network needs one'
    )


def official_names(flat: Collection[str], config: ConfigDict) -> dict[str, str]:
  """Official name of each of our parameters, by our flat name.

  Ours are such as down_0_0_res/conv_in/kernel. Raises as check_config does.
  """
  check_config(config)
  model = config.model
  levels, blocks = range(len(model.channel_mults)), model.num_res_blocks
  modules = {  # official ones by ours
    'time_0': 'time_embed.0',
    'time_1': 'time_embed.2',
    'middle_0_res': 'middle_block.0',
    'middle_attn': 'middle_block.1',
    'middle_1_res': 'middle_block.2',
    'norm_out': 'out.1',
    'conv_out': 'out.3',
  }
  down, up = ['stem'], []
  for level in levels:
    down += [*(f'down_{level}_{i}' for i in range(blocks)), f'down_{level}']
    up = [*(f'up_{level}_{i}' for i in range(blocks + 1)), *up]
  for n, block in enumerate(down):
    modules[block] = modules[f'{block}_res'] = f'input_blocks.{n}.0'
    modules[f'{block}_attn'] = f'input_blocks.{n}.1'
    modules[f'{block}/conv'] = f'input_blocks.{n}.0.op'
  for n, block in enumerate(up):
    modules[f'{block}_res'] = f'output_blocks.{n}.0'
    modules[f'{block}_attn'] = f'output_blocks.{n}.1'
  for level in levels:
    # The last block of a level ends in the upsampling, after any attention.
    n = up.index(f'up_{level}_{blocks}')
    place = 2 if level in model.attention_levels else 1
    modules[f'up_{level}/conv'] = f'output_blocks.{n}.{place}.conv'
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
  """Makes our parameters, nested and float32, of an official state dict.

  Args:
    tensors: the state dict, by name; float32, or 16 bits.
    expected: our parameters or their shapes, see build.abstract_params.
    config, where: of the network, and where the tensors are from.

  Raises:
    ValueError: one line; see check_config and weights.check_tensors.
  """
  blank = lambda w: np.broadcast_to(np.float32(0), w.shape)
  wanted = to_official(jax.tree.map(blank, expected), config)
  shapes = {name: w.shape for name, w in wanted.items()}
  weights.check_tensors(tensors, shapes, where, _DTYPES)
  flat = flatten_dict(expected, sep='/')
  for ours, theirs in official_names(flat, config).items():
    w, shape = tensors[theirs], flat[ours].shape
    if ours.endswith('/kernel'):
      w = np.moveaxis(w, (0, 1), (-1, -2))
    flat[ours] = np.ascontiguousarray(w.reshape(shape), np.float32)
  return unflatten_dict(flat, sep='/')


def to_official(params: Any, config: ConfigDict) -> dict[str, np.ndarray]:
  """Makes an official state dict of our parameters; inverts from_official."""
  flat = flatten_dict(params, sep='/')
  tensors = {}
  for ours, theirs in official_names(flat, config).items():
    w = np.asarray(flat[ours])
    if ours.endswith('/kernel'):  # channels last to [out, in, ...]
      w = np.moveaxis(w, (-1, -2), (0, 1))
      w = w.reshape(*w.shape[:2], 1) if '_attn/' in ours else w
    tensors[theirs] = np.ascontiguousarray(w)
  return tensors


def read_file(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the one official state dict in a file: tensors by official name.

  It is a .safetensors file; or what torch.save wrote, the state dict or nested
  dicts with it in them.

  Raises:
    ValueError: the file is damaged or holds no official state dict, or several.
    OSError, ImportError: it cannot be read, or needs torch, which is not there.
  """
  path = pathlib.Path(path)
  read = weights.read_tensors if path.suffix == '.safetensors' else _read_torch
  flat = read(path)
  ends = [name for name in flat if f'.{name}'.endswith(f'.{_FIRST}')]
  if len(ends) != 1:
    raise ValueError(
      f'{path} must hold one official state dict, which has a {_FIRST}, but '
      f'has {", ".join(ends) or "none"}; save the state dict alone'
    )
  prefix = ends[0].removesuffix(_FIRST)
  return {
    name.removeprefix(prefix): tensor
    for name, tensor in flat.items()
    if name.startswith(prefix)
  }


def _read_torch(path):
  try:
    import torch  # only these files need it
  except ImportError as error:
    raise ImportError(
      f'{path} needs torch; pip install torch, or convert it to .safetensors'
    ) from error
  wrong = 'damaged, or holds more than tensors, which could run a program'
  with outside.named(path, wrong, 'save its state dict alone'):
    saved = torch.load(path, map_location='cpu', weights_only=True)
    tensors = {
      '.'.join(map(str, keys)): value
      for keys, value in flatten_dict(saved).items()
      if isinstance(value, torch.Tensor)
    }
  # numpy has no bfloat16; float32 holds all values of the shorter floats.
  short = torch.bfloat16, torch.float16
  return {
    name: (w.float() if w.dtype in short else w).detach().numpy()
    for name, w in tensors.items()
  }


def write_file(
  path: str | pathlib.Path, tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes a state dict as a new .safetensors file, whole or not at all."""
  path = pathlib.Path(path)
  if path.suffix != '.safetensors' or path.exists():
    raise ValueError(f'{path} must be a new file that ends in .safetensors')
  path.parent.mkdir(parents=True, exist_ok=True)
  # 'pt' is what PyTorch's own readers ask for.
  weights.write_tensors(path, tensors, {'format': 'pt'})
