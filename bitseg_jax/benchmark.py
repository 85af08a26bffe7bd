"""Benchmarks how fast the parts are; prints a table, writes JSON to --output.

bitseg benchmark [--what=train,sample] [--config=configs/main.py]
  [--output=FILE.json] [--compare=OLD.json] [--profile=DIR] [--topology=v5e:2x2]
"""

from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from bitseg_jax import cli
from bitseg_jax.benchmarks import device, host
from bitseg_jax.data import outside
from bitseg_jax.runs import schema
from bitseg_jax.runs.log import write_json

WHAT = ('input', 'metrics', *device.UNITS)


def define_flags() -> None:
  """Defines the flags of `bitseg benchmark`."""
  string = flags.DEFINE_string
  config_flags.DEFINE_config_file(
    'config', str(cli.CONFIGS / 'main.py'), 'Config to measure.'
  )
  flags.DEFINE_list('what', list(WHAT[:4]), f'Some of {",".join(WHAT)}.')
  string('data', '', 'Prepared dataset; by default one is made.')
  string('output', '', 'JSON file to write as well.')
  string('compare', '', 'JSON of an earlier run, to print ratios.')
  string('profile', '', 'Folder for XProf traces.')
  string('topology', '', 'Slice of TPUs to compile for, such as v5e:2x2.')


def main() -> None:
  """Runs the benchmarks that the flags name, and prints the rows of each."""
  f = flags.FLAGS
  if not f.what or set(f.what) - set(WHAT):
    choices = ', '.join(WHAT)
    raise ValueError(f'--what={",".join(f.what)}: choose among {choices}')
  on_devices = [name for name in f.what if name in device.UNITS]
  if f.topology and (f.profile or not on_devices):
    raise ValueError(
      '--topology compiles only: give --what=train, no --profile'
    )
  cli.check_output(f.output, 'rows')
  old = {}
  if f.compare:
    with outside.named(f.compare, 'not written by a benchmark'):
      rows = outside.read_json(Path(f.compare))['rows']
      old = {name: float(value) for name, value, _ in rows}
  schema.check(f.config)
  # A slice leaves the machine's TPUs alone; work is counted on CPU.
  platforms = jax.config.jax_platforms
  if f.topology:
    jax.config.update('jax_platforms', 'cpu')
  elif platforms and 'cpu' not in platforms.split(','):
    jax.config.update('jax_platforms', f'{platforms},cpu')
  here = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  where = f'compiled for {f.topology}' if f.topology else here
  print(f'{where}, {f.config.model.dtype}, jax {jax.__version__}')
  rows = []

  def show(measured):
    for name, value, unit in measured:
      ratio = f'  x {value / old[name]:.2f}' if old.get(name) else ''
      print(f'{name:<40}{value:>10.4g} {unit}{ratio}', flush=True)
    rows.extend(measured)

  if f.topology:
    chips = device.open_slice(f.topology)
    for name in on_devices:
      show(device.compile_and_tell(name, f.config, chips)[-1])
  else:
    peak = device.matmul_rate(f.config.model.dtype) if on_devices else 0.0
    show([('matmul', peak / 1e12, 'TFLOP/s')] * bool(peak))
    for name in f.what:
      if name == 'input':
        show(host.measure_input(f.config.data.image_size, f.data))
      elif name == 'metrics':
        show(host.measure_metrics(f.config.data.image_size))
      else:
        show(device.measure(name, f.config, peak, f.profile))
  if f.output:
    about = {'what': f.what, 'devices': where, 'config': f.config.to_dict()}
    write_json(Path(f.output), {**about, 'rows': rows})


if __name__ == '__main__':
  cli.run(define_flags, main)
