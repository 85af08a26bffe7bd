"""Benchmarks how fast the parts are; prints a table, writes JSON to --output.

bitseg benchmark [--what=input,metrics,train,sample]
  [--config=configs/main.py] [--config.train.batch_size=8]
  [--output=FILE.json] [--compare=OLD.json] [--profile=DIR]
  [--topology=v5e:2x2]
"""

from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from bitseg_jax import cli
from bitseg_jax.benchmarks import device, host, topology
from bitseg_jax.data.outside import SourceError, read_json
from bitseg_jax.runs import schema
from bitseg_jax.runs.log import write_json

WHAT = ('input', 'metrics', 'train', 'sample')


def define_flags() -> None:
  """Defines the flags of `bitseg benchmark`."""
  string = flags.DEFINE_string
  config_flags.DEFINE_config_file(
    'config', str(cli.CONFIGS / 'main.py'), 'Config to measure.'
  )
  flags.DEFINE_list('what', list(WHAT), f'Parts to measure: {", ".join(WHAT)}.')
  string('data', '', 'Prepared dataset; by default one is made.')
  string('output', '', 'JSON file to write as well.')
  string('compare', '', 'JSON of an earlier run, to print ratios.')
  string('profile', '', 'Folder for XProf traces of train and sample.')
  slice_of = (
    'Slice of TPUs, such as v5e:2x2 or v5p:2x2x1, to compile train and '
  )
  string('topology', '', slice_of + 'sample for; no TPU is needed.')


def main() -> None:
  """Runs the benchmarks that the flags name, and prints the rows of each."""
  f = flags.FLAGS
  unknown = set(f.what) - set(WHAT)
  if unknown or not f.what:
    raise ValueError(
      f'--what={",".join(f.what)}: choose among {", ".join(WHAT)}'
    )
  on_devices = [name for name in f.what if name in ('train', 'sample')]
  if f.topology and f.profile:
    raise ValueError('--profile traces what is run; with --topology nothing is')
  if f.topology and not on_devices:
    raise ValueError('--topology compiles train and sample: name one in --what')
  cli.check_output(f.output, 'rows')
  old = _read_rows(Path(f.compare)) if f.compare else {}
  schema.check(f.config)
  # A slice leaves the machine's TPUs alone; work is counted on CPU.
  platforms = jax.config.jax_platforms
  if f.topology:
    jax.config.update('jax_platforms', 'cpu')
  elif platforms and 'cpu' not in platforms.split(','):
    jax.config.update('jax_platforms', f'{platforms},cpu')
  where = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  where = f'compiled for {f.topology}' if f.topology else where
  print(f'{where}, {f.config.model.dtype}, jax {jax.__version__}')
  rows, peak = [], 0.0

  def show(measured):
    for name, value, unit in measured:
      ratio = f'  x {value / old[name]:.2f}' if old.get(name) else ''
      print(f'{name:<40}{value:>10.4g} {unit}{ratio}', flush=True)
    rows.extend(measured)

  if on_devices and not f.topology:
    peak = device.matmul_rate(f.config.model.dtype)
    show([('matmul', peak / 1e12, 'TFLOP/s')])
  side = f.config.data.image_size
  measures = {
    'input': lambda: host.measure_input(side, f.data),
    'metrics': lambda: host.measure_metrics(side),
    'train': lambda: device.measure_train(f.config, peak, f.profile),
    'sample': lambda: device.measure_sample(f.config, peak, f.profile),
  }
  for name in f.what:
    if not f.topology:
      show(measures[name]())
    elif name in on_devices:
      show(topology.measure(name, f.config, f.topology))
  if f.output:
    about = {'what': f.what, 'devices': where, 'config': f.config.to_dict()}
    write_json(Path(f.output), {**about, 'rows': rows})


def _read_rows(path):
  """{name: value} of the JSON that an earlier run wrote."""
  content = read_json(path)
  try:
    return {name: float(value) for name, value, _ in content['rows']}
  except (KeyError, TypeError, ValueError) as error:
    raise SourceError(f'{path}: not written by a benchmark') from error


if __name__ == '__main__':
  cli.run(define_flags, main)
