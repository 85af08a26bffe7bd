"""Benchmarks how fast the parts are; prints a table, writes JSON to --output.

bitseg benchmark [--what=input,metrics,train,sample]
  [--config=configs/main.py] [--config.train.batch_size=8]
  [--output=FILE.json] [--compare=OLD.json] [--profile=DIR]
  [--topology=v5e:2x2]
"""

from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from bitseg_jax import cli
from bitseg_jax.benchmarks import device, host, table, topology
from bitseg_jax.runs import checks
from bitseg_jax.runs.log import write_json

WHAT = ('input', 'metrics', 'train', 'sample')


def measure(
  what: str, config: ConfigDict, data: str, peak: float, traces: str
) -> host.Rows:
  """Runs one benchmark of WHAT and returns the rows of its table."""
  if what == 'input':
    return host.measure_input(config.data.image_size, data)
  if what == 'metrics':
    return host.measure_metrics(config.data.image_size)
  if what == 'train':
    return device.measure_train(config, peak, traces)
  return device.measure_sample(config, peak, traces)


def run(
  what: list[str],
  config: ConfigDict,
  data: str = '',
  output: str = '',
  compare: str = '',
  traces: str = '',
  slice_name: str = '',
) -> None:
  """Runs benchmarks, prints the rows of each as it ends and writes the JSON.

  Raises:
    ValueError: if `what` is empty or names something else than WHAT, or traces
      are asked for where nothing is run.
    OSError: if the file to compare with, or the folder to write to, does not
      exist.
  """
  if not what:
    raise ValueError(f'--what is empty; choose among {", ".join(WHAT)}')
  for name in what:
    if name not in WHAT:
      raise ValueError(f'--what={name}: choose among {", ".join(WHAT)}')
  if slice_name and traces:
    raise ValueError('--profile traces what is run; with --topology nothing is')
  cli.check_output(output, 'rows')
  old = table.read(Path(compare)) if compare else {}
  checks.check(config)
  devices = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  if slice_name:
    what = [name for name in what if name in ('train', 'sample')]
    if not what:
      raise ValueError(
        '--topology compiles train and sample: name one in --what'
      )
    devices = f'compiled for {slice_name}'
  print(f'{devices}, {config.model.dtype}, jax {jax.__version__}')
  rows, peak = [], 0.0
  if {'train', 'sample'} & set(what) and not slice_name:
    peak = device.matmul_rate(config.model.dtype)
    rows.append(('matmul', peak / 1e12, 'TFLOP/s'))
    table.show(rows, old)
  for name in what:
    if slice_name:
      measured = topology.measure(name, config, slice_name)
    else:
      measured = measure(name, config, data, peak, traces)
    table.show(measured, old)
    rows += measured
  if output:
    about = {'what': what, 'devices': devices, 'config': config.to_dict()}
    write_json(Path(output), {**about, 'rows': rows})


def define_flags() -> None:
  """Defines the flags of `bitseg benchmark`."""
  config_flags.DEFINE_config_file(
    'config', str(cli.config_folder() / 'main.py'), 'Config to measure.'
  )
  flags.DEFINE_list('what', list(WHAT), f'Parts to measure: {", ".join(WHAT)}.')
  flags.DEFINE_string('data', '', 'Prepared dataset; by default one is made.')
  flags.DEFINE_string('output', '', 'JSON file to write as well.')
  flags.DEFINE_string(
    'profile', '', 'Folder for XProf traces of train and sample.'
  )
  flags.DEFINE_string(
    'topology',
    '',
    'Slice of TPUs, such as v5e:2x2 or v5p:2x2x1, to compile train and sample '
    'for; no TPU is needed.',
  )
  flags.DEFINE_string('compare', '', 'JSON of an earlier run, to print ratios.')


def main() -> None:
  """Runs the benchmarks that the flags name."""
  f = flags.FLAGS
  if f.topology:  # leaves the TPUs of this machine alone, if it has any
    jax.config.update('jax_platforms', 'cpu')
  elif jax.config.jax_platforms:  # operations are counted on CPU
    platforms = jax.config.jax_platforms.split(',')
    if 'cpu' not in platforms:
      jax.config.update('jax_platforms', ','.join([*platforms, 'cpu']))
  run(f.what, f.config, f.data, f.output, f.compare, f.profile, f.topology)


if __name__ == '__main__':
  cli.run(define_flags, main)
