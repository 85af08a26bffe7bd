"""Exchanges weights with the official PyTorch code, and packs those of a run.

bitseg convert --input=official.safetensors --output=DIR --config=main
bitseg convert --input=MODEL --output=official.safetensors --to=official
bitseg convert --input=MODEL --output=DIR [--dtype=bfloat16]

The first makes a pretrained model of an official state dict, a .safetensors
file or what torch.save wrote (.pt, .pth; pip install bitseg-jax[torch]). The
config is that of the network, a name or a file; where the file holds several
state dicts, --key names one. The second writes the official state dict of a
MODEL: the workdir of a run, a step of it, a pretrained folder, the name of a
model that comes with the package, or hf://OWNER/NAME. The third packs a MODEL
into a pretrained folder. As float32 all are exact, bit for bit.
"""

import pathlib

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from bitseg_jax import cli
from bitseg_jax.runtime import checks
from bitseg_jax.segmenting import official, pretrained, weights


def define_flags() -> None:
  """Defines the flags of the command."""
  config_flags.DEFINE_config_file(
    'config', None, "Config of an official state dict's network, or its name."
  )
  flags.DEFINE_string('input', None, 'State dict or MODEL, see above.')
  flags.DEFINE_string('output', None, 'Folder or .safetensors file to write.')
  flags.DEFINE_enum('to', 'pretrained', ['pretrained', 'official'], 'Format.')
  flags.DEFINE_string('key', None, 'Which state dict of the file.')
  kinds = ['ema_params', 'params']
  flags.DEFINE_enum('kind', kinds[0], kinds, 'Which weights of a run.')
  dtypes = list(pretrained.DTYPES)
  flags.DEFINE_enum('dtype', dtypes[0], dtypes, 'Of a pretrained model.')
  flags.DEFINE_string('card', '', 'Markdown file that describes the model.')
  flags.mark_flags_as_required(['input', 'output'])


def main() -> None:
  """Converts what the flags name."""
  f = flags.FLAGS
  if not f.input or not f.output:
    raise ValueError('--input and --output must not be empty')
  card = pathlib.Path(f.card).read_text() if f.card else ''
  if pathlib.Path(f.input).is_file():
    if f.to == 'official':
      raise ValueError(
        f'{f.input} is a file, and --to=official takes a model of ours: a '
        'workdir or a folder'
      )
    params, config, origin = _read_official(f.input, f.key, f.config)
  else:
    if f.config is not None or f.key is not None:
      raise ValueError(
        f'{f.input} is no file; --config and --key are of an official state '
        'dict, and a model of ours has its config with it'
      )
    found = weights.read(f.input, f.kind)
    params, config, origin = found.params, found.config, found.origin
  if f.to == 'official':
    official.write_file(f.output, official.to_official(params, config))
  else:
    pretrained.save_pretrained(f.output, params, config, card, f.dtype)
  leaves = jax.tree.leaves(params)
  count = sum(leaf.size for leaf in leaves)
  print(
    f'{f.output}: {count:,} parameters in {len(leaves)} tensors, of {f.input} '
    f'({origin})'
  )


def _read_official(path: str, key: str | None, config: ConfigDict | None):
  """(parameters, config, which state dict) of an official file."""
  if config is None:
    raise ValueError(
      f'--config is missing: {path} does not say what network its tensors are '
      'of; the main model is --config=main'
    )
  checks.check(config)
  official.check_config(config)
  expected = pretrained.abstract_params(config)
  key, tensors = official.read_file(path, key)
  return official.from_official(tensors, expected, config, path), config, key


if __name__ == '__main__':
  cli.run(define_flags, main)
