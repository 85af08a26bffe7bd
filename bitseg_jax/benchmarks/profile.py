"""Where the time of a compiled program goes, by jax.profiler."""

import gzip
import itertools
import json
import pathlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax

from bitseg_jax.benchmarks.host import Rows

# A part of the network's path in an operation's name, and what it is counted
# as; the first that fits.
_KINDS = {
  'attn/': 'attention',
  '/norm': 'norm and SiLU',
  'silu': 'norm and SiLU',
  'conv_general_dilated': 'convolutions',
  'UNet': 'rest of the network',
}
NOTHING = 'idle, or CPU convolutions'
_INSTRUCTION = re.compile(r'%([\w.-]+) = (\S+) (.*)')


def kind_of(name: str, result: str, op_name: str) -> str:
  """What an instruction is counted as.

  Args:
    name: the instruction's, such as 'convolution.36'.
    result: its type, such as 'f32[3,3,64,64]{3,2,1,0}'.
    op_name: path in its metadata, such as
      'jit(step)/transpose(jvp(UNet))/stem/conv_general_dilated'; '' for what
      the compiler has put in, or rewritten.
  """
  # Kernels are 3 x 3, however laid out; activations of these sides are none.
  sides = re.search(r'\[([\d,]*)\]', result)
  is_kernel = sides and sides[1].split(',').count('3') > 1
  if not op_name:
    if 'convolution' in name:
      return 'gradients of kernels' if is_kernel else 'convolutions'
    return 'put in by the compiler'  # changes of layout, parts of large sums
  fitting = [kind for part, kind in _KINDS.items() if part in op_name]
  if not fitting:
    return 'outside of the network'  # corruption, loss, optimizer, average
  kind = fitting[0]
  if 'transpose(' not in op_name:
    return kind
  if kind == 'convolutions' and is_kernel:
    return 'gradients of kernels'
  return f'gradients, {kind}'


def kinds_of(program: str) -> dict[str, str]:
  """Kind by instruction, of a compiled program's HLO text."""
  op_name = re.compile(r'op_name="([^"]*)"')
  return {
    name: kind_of(name, result, ''.join(op_name.findall(rest)[:1]))
    for name, result, rest in _INSTRUCTION.findall(program)
  }


def shares(events: list[dict[str, Any]], kinds: dict[str, str]) -> Counter:
  """Percent of the time, by kind: a moment is that of the last to start.

  Moments in which nothing runs are NOTHING: XLA:CPU hands convolutions to
  threads that no trace shows.

  Args:
    events: of a trace, in the Chrome format; those of device operations name
      the instruction as args['hlo_op'].
    kinds: as from `kinds_of`.
  """
  ran = sorted(
    (event['ts'], event['ts'] + event['dur'], event['args']['hlo_op'])
    for event in events
    if event.get('ph') == 'X' and 'hlo_op' in event.get('args', {})
  )
  moments = sorted({moment for start, end, _ in ran for moment in (start, end)})
  spent, upcoming, running = Counter(), 0, []
  for moment, until in itertools.pairwise(moments):
    while upcoming < len(ran) and ran[upcoming][0] <= moment:
      running.append(ran[upcoming])
      upcoming += 1
    running = [event for event in running if event[1] > moment]
    kind = kinds.get(running[-1][2], 'unnamed') if running else NOTHING
    spent[kind] += until - moment
  total = sum(spent.values())
  return Counter({kind: 100 * t / total for kind, t in spent.items()})


def measure_shares(
  name: str, program: Any, call: Callable[[], Any], folder: str
) -> Rows:
  """Traces one call of a program that has run before.

  Args:
    name: begins the rows' names.
    program: the compiled program.
    call: runs it, returns what it gives.
    folder: where the trace is kept, for XProf or Perfetto.

  Returns:
    A row for each kind of operation, the largest share first.
  """
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0  # a million events of no interest
  with jax.profiler.trace(folder, profiler_options=options):
    jax.block_until_ready(call())
  traces = pathlib.Path(folder).glob('plugins/profile/*/*.trace.json.gz')
  newest = max(traces, key=lambda path: path.stat().st_mtime)
  events = json.loads(gzip.decompress(newest.read_bytes()))['traceEvents']
  found = shares(events, kinds_of(program.as_text()))
  return [(f'{name}: {kind}', part, '%') for kind, part in found.most_common()]
