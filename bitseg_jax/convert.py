"""Exchanges weights with the official PyTorch code, and packs those of a run.

bitseg convert --input=official.safetensors --output=DIR --config=main
bitseg convert --input=MODEL --output=official.safetensors --to=official
bitseg convert --input=MODEL --output=DIR [--dtype=bfloat16]

The first makes a pretrained model of an official state dict, a .safetensors
file or what torch.save wrote (.pt, .pth; pip install torch). The config is that
of the network, a name or a file. The second writes the official state dict of a
MODEL: the workdir of a run, a step of it, a pretrained folder, the name of a
model that comes with the package, or hf://OWNER/NAME. The third packs a MODEL
into a pretrained folder. As float32 all are exact, bit for bit.
"""

import pathlib

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from bitseg_jax import cli
from bitseg_jax.runs import build, official, schema, weights


def convert(
  source: str,
  output: str,
  config: ConfigDict | None = None,
  to: str = 'pretrained',
  kind: str = 'ema_params',
  dtype: str = 'float32',
  card: str = '',
) -> None:
  """Converts one model; says how large it is.

  Args:
    source: file with an official state dict, or what weights.read takes.
    output: folder, or .safetensors file, to write.
    config: of the network, for a state dict.
    to: 'pretrained' or 'official'.
    kind, dtype, card: see weights.read and weights.save.

  Raises:
    ValueError, OSError, ImportError: one line that says what is wrong.
  """
  if not pathlib.Path(source).is_file():
    if config is not None:
      raise ValueError(
        f'{source} is no file; --config is of an official state dict, and a '
        'model of ours has its config with it'
      )
    params, config, *_ = weights.read(source, kind)
  elif to == 'official' or config is None:
    raise ValueError(
      f'{source} is a file, so a state dict of the official code; give the '
      '--config of its network (--config=main is the main model), and no --to'
    )
  else:
    schema.check(config)
    official.check_config(config)
    expected = build.abstract_params(config)
    tensors = official.read_file(source)
    params = official.from_official(tensors, expected, config, source)
  if to == 'official':
    official.write_file(output, official.to_official(params, config))
  else:
    weights.save(output, params, config, card, dtype)
  leaves = jax.tree.leaves(params)
  count = sum(leaf.size for leaf in leaves)
  print(f'{output}: {count:,} parameters in {len(leaves)} tensors, of {source}')


def define_flags() -> None:
  """Defines the flags of the command."""
  config_flags.DEFINE_config_file(
    'config', None, "Config of an official state dict's network, or its name."
  )
  string, must = flags.DEFINE_string, {'required': True}
  string('input', None, 'State dict or MODEL, see above.', **must)
  string('output', None, 'Folder or .safetensors file to write.', **must)
  flags.DEFINE_enum('to', 'pretrained', ['pretrained', 'official'], 'Format.')
  kinds = ['ema_params', 'params']
  flags.DEFINE_enum('kind', kinds[0], kinds, 'Which weights of a run.')
  flags.DEFINE_enum('dtype', 'float32', list(weights.DTYPES), 'Of pretrained.')
  string('card', '', 'Markdown file that describes the model.')


def main() -> None:
  """Runs `convert` on the flags."""
  f = flags.FLAGS
  if f.to == 'official' and (f.card or f['dtype'].present):
    raise ValueError('--card and --dtype are of a pretrained model')
  card = pathlib.Path(f.card).read_text('utf-8') if f.card else ''
  convert(f.input, f.output, f.config, f.to, f.kind, f.dtype, card)


if __name__ == '__main__':
  cli.run(define_flags, main)
