"""Counts what a program compiled for TPU computes, moves and sends.

XLA's own count of bytes overstates: an asynchronous slice counts its whole
operand, and arrays in the chip's fast memory count as if they lay in HBM. So
the compiled text is read instead. All counts are of one chip and one call.
"""

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

_BITS = {'pred': 8, 'bf16': 16, 'token': 0, 'opaque': 0}
_COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_ASIDE = ('copy-start', 'slice-start', 'async-start')
_HOST = ('infeed', 'outfeed', 'send', 'recv')
# These name arrays or make none; they move nothing.
_FREE = (
  'parameter',
  'constant',
  'get-tuple-element',
  'tuple',
  'bitcast',
  'after-all',
  'while',
  'call',
  'conditional',
)
_ARRAY = re.compile(r'([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_LINE = re.compile(r'\s+(ROOT )?%?([\w.-]+) = ')
_HEADER = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\{$')


class Instruction(NamedTuple):
  """One line of a computation: name = result opcode(operands), rest."""

  name: str
  result: str
  opcode: str
  operands: list[str]
  rest: str
  root: bool


class Traffic(NamedTuple):
  """What a chip does in one call of a program.

  Attributes:
    flops: floating-point operations of its convolutions and products.
    moved: bytes that operations read from HBM and write to it.
    aside: bytes of transfers between HBM and fast memory that run beside them.
    tiled: moved + aside, as arrays lie in memory: their last two axes fill
      tiles, mostly of 8 x 128 values.
    collectives: (count, bytes of the results) of each kind of communication
      between chips.
    host: number of transfers from or to the host.
    by_operation: bytes of `moved` by the name that the JAX operation has in
      the program's metadata.
  """

  flops: float
  moved: float
  aside: float
  tiled: float
  collectives: dict[str, tuple[int, int]]
  host: int
  by_operation: Counter


def count(text: str) -> Traffic:
  """Counts the work and traffic of a compiled program.

  Args:
    text: scheduled HLO, as from `compiled.as_text()`.

  Returns:
    The counts of one call; the body of a loop counts as often as it runs.

  Raises:
    ValueError: if the text has no entry computation, or a loop without a known
      number of rounds.
  """
  computations, entry = parse(text)
  times, fused = _visits(computations, entry)
  flops, host, sent = 0, 0, {}
  for name, visits in times.items():
    results = {i.name: i.result for i in computations[name]}
    for i in computations[name]:
      kind = i.opcode.removesuffix('-start')
      if kind in ('convolution', 'dot'):
        flops += visits * _flops(i, results)
      elif kind in _COLLECTIVES:
        # One that runs beside operations is written in each fusion with one of
        # them, always with the same channel.
        channel = re.search(r'channel_id=(\d+)', i.rest)
        key = kind, channel[1] if channel else f'{name}/{i.name}'
        sent[key] = visits, visits * _collective_bytes(i)
      host += visits * (i.opcode in _HOST or 'S(5)' in i.result)
  by_operation, aside = _traffic(computations, times, fused)
  moved = sum(by_operation.values())
  tiled = {
    name: [i._replace(result=_ARRAY.sub(_fill_tiles, i.result)) for i in body]
    for name, body in computations.items()
  }
  filled, filled_aside = _traffic(tiled, times, fused)
  return Traffic(
    float(flops),
    float(moved),
    float(aside),
    float(sum(filled.values()) + filled_aside),
    {
      kind: tuple(map(sum, zip(*_of_kind(sent, kind), strict=True)))
      for kind in dict.fromkeys(kind for kind, _ in sent)
    },
    host,
    by_operation,
  )


def _of_kind(sent, kind):
  return [counts for key, counts in sent.items() if key[0] == kind]


def _traffic(computations, times, fused):
  """(bytes moved by operation, bytes moved aside); see Traffic."""
  by_operation, aside = Counter(), 0
  for name in set(times) - fused:
    results = {i.name: i.result for i in computations[name]}
    for i in computations[name]:
      moved = times[name] * _moved(i, results, computations)
      if i.opcode in _ASIDE:
        aside += moved
        continue
      operation = re.search(r'op_name="([^"]*)"', i.rest)
      by_operation[operation[1] if operation else i.opcode] += moved
  return by_operation, aside


def _fill_tiles(array):
  """Writes an array's type with its axes rounded up to whole tiles."""
  dtype, dims, layout = array.groups()
  tile = re.search(r'T\(([\d,]+)\)', layout or '')
  if not dims or not tile:
    return array[0]
  dims = [int(n) for n in dims.split(',')]
  order = [int(n) for n in layout.partition(':')[0].split(',') if n]
  sides = [int(n) for n in tile[1].split(',')]
  for axis, side in zip(order, reversed(sides), strict=False):
    dims[axis] = -(-dims[axis] // side) * side
  return f'{dtype}[{",".join(map(str, dims))}]{{{layout}}}'


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """Reads HLO text.

  Returns:
    (instructions of each computation by its name, name of the entry).
  """
  computations, entry, body = {}, '', []
  for line in text.splitlines():
    if header := _HEADER.match(line):
      body = computations[header[2]] = []
      entry = header[2] if header[1] else entry
    elif found := _LINE.match(line):
      result, after = _bracketed(line[found.end() :])
      opcode, _, after = after.strip().partition('(')
      operands, rest = _bracketed('(' + after)
      if opcode in ('parameter', 'constant'):
        named = [operands.strip('()')]
      else:
        named = re.findall(r'%([\w.-]+)', operands)
      body.append(
        Instruction(found[2], result, opcode, named, rest, bool(found[1]))
      )
  if not entry:
    raise ValueError('the text holds no compiled program: it has no ENTRY')
  return computations, entry


def _bracketed(text):
  """Splits text behind its first word, in which brackets may hold spaces."""
  depth = 0
  for end, char in enumerate(text):
    depth += (char in '({[') - (char in ')}]')
    if not depth and char in ' ),' and (char == ')' or end):
      end += char == ')'
      return text[:end], text[end:]
  return text, ''


def _visits(computations, entry):
  """({computation: how often a call runs it}, names of those in fusions)."""
  times, fused, waiting = Counter(), set(), [(entry, 1, False)]
  while waiting:
    name, visits, inside = waiting.pop()
    times[name] += visits
    if inside:
      fused.add(name)
    for i in computations[name]:
      rounds = _rounds(i, computations) if i.opcode == 'while' else 1
      for called in _called(i):
        waiting.append((called, visits * rounds, inside or _fuses(i)))
  return times, fused


def _rounds(i, computations):
  """How often a loop runs: JAX's loops count from 0 up to a constant."""
  if trips := re.search(r'known_trip_count"?:\{"n":"(\d+)"', i.rest):
    return int(trips[1])
  condition = computations[re.search(r'condition=%?([\w.-]+)', i.rest)[1]]
  constants = {c.name: c for c in condition if c.opcode == 'constant'}
  test = condition[-1]
  known = [constants[name] for name in test.operands if name in constants]
  if test.opcode != 'compare' or 'direction=LT' not in test.rest or not known:
    raise ValueError(f'loop {i.name} has no known number of rounds')
  return int(known[0].operands[0])


def _called(i):
  """Names of the computations that an instruction runs, but small reducers."""
  if i.opcode == 'conditional':  # as if the first branch were always taken
    return re.findall(
      r'(?:branch_computations=\{|true_computation=)%?([\w.-]+)', i.rest
    )
  key = {'while': 'body', 'call': 'to_apply'}.get(i.opcode, 'calls')
  return re.findall(rf'\b{key}=%?([\w.-]+)', i.rest)


def _fuses(i):
  return i.opcode == 'fusion' or i.opcode.startswith('async')


def _arrays(shape, in_hbm=False):
  """Yields the bytes of each array of a type; of those in HBM alone."""
  for dtype, dims, layout in _ARRAY.findall(shape):
    if in_hbm and re.search(r'S\([1-9]\)', layout):
      continue
    bits = _BITS.get(dtype) or int(re.sub(r'^\D+(\d+).*', r'\1', dtype) or 0)
    values = np.prod([int(n) for n in dims.split(',') if n], dtype=np.int64)
    yield int(values) * bits // 8


def _moved(i, results, computations):
  """Bytes that an instruction reads from HBM and writes to it."""
  if i.opcode in _FREE or i.opcode.endswith(('-done', '-update')):
    return 0
  if i.opcode in _ASIDE:
    return _moved_aside(i, results)
  inner = {}
  if i.opcode == 'fusion':
    inner = _partly_read(computations[_called(i)[0]])
  elif i.opcode in ('slice', 'dynamic-slice'):
    inner = {0: sum(_arrays(i.result))}
  total = sum(_arrays(i.result, in_hbm=True))
  for n, operand in enumerate(i.operands):
    whole = sum(_arrays(results.get(operand, ''), in_hbm=True))
    if operand not in i.operands[:n]:
      total += min(whole, inner.get(n, whole))
  return total


def _moved_aside(i, results):
  """Bytes of a transfer that runs beside the computation.

  Its result is (target, source, ...) or ((sources), target, ...): what crosses
  is the smallest of them that is no counter, once for each end that is in HBM.
  """
  operands = ' '.join(results.get(name, '') for name in i.operands)
  ends = [n for n in _arrays(i.result) if n > 4] or [0]
  source = any(True for _ in _arrays(operands, in_hbm=True))
  spaces = [
    bool(re.search(r'S\([1-9]\)', layout))
    for _, dims, layout in _ARRAY.findall(i.result)
    if dims
  ]
  target = spaces.count(False) > source
  return min(ends) * (source + target)


def _partly_read(body):
  """{operand: bytes} of a fusion's operands of which it reads only slices."""
  users = {}
  for i in body:
    for operand in i.operands:
      users.setdefault(operand, []).append(i)
  read = {}
  for i in body:
    if i.opcode == 'parameter' and i.name in users:
      using = users[i.name]
      if all(user.opcode in ('slice', 'dynamic-slice') for user in using):
        read[int(i.operands[0])] = sum(sum(_arrays(u.result)) for u in using)
  return read


def _collective_bytes(i):
  """Bytes of what a collective results in; of `-start`, its second half."""
  sizes = list(_arrays(i.result))
  if i.opcode == 'all-gather-start':
    return max(sizes)
  return sum(sizes)


def _flops(i, results):
  """Operations of a convolution or product, padding left out."""
  dims = [_dims(results[name]) for name in i.operands[:2]]
  out = _dims(i.result)
  if i.opcode == 'dot':
    contracted = re.search(r'lhs_contracting_dims=\{([\d,]+)\}', i.rest)[1]
    sizes = [dims[0][int(n)] for n in contracted.split(',')]
    return 2 * np.prod(out, dtype=float) * np.prod(sizes, dtype=float)
  left, kernel, result = re.search(
    r'dim_labels=(\w+)_(\w+)->(\w+)', i.rest
  ).groups()
  total = 2.0 * out[result.index('b')] * out[result.index('f')]
  total *= dims[1][kernel.index('i')]
  window = re.search(r'window=\{([^}]*)\}', i.rest)
  window = dict(re.findall(r'(\w+)=(\S+)', window[1])) if window else {}
  for n, label in enumerate(sorted(set(kernel) - {'i', 'o'})):
    total *= _valid(
      dims[0][left.index(label)], out[result.index(label)], window, n
    )
  return total


def _dims(shape):
  return [int(n) for n in _ARRAY.search(shape)[2].split(',') if n]


def _valid(size, count_out, window, axis):
  """Pairs (output, tap) along one axis that meet a value, not padding."""
  of = lambda key, default: window.get(key, default).split('x')
  pick = lambda key, default: (
    of(key, default)[axis] if key in window else default
  )
  taps = int(pick('size', '1'))
  low = int(pick('pad', '0_0').split('_')[0])
  stride, spread = int(pick('stride', '1')), int(pick('rhs_dilate', '1'))
  holes = int(pick('lhs_dilate', '1'))
  where = np.arange(count_out)[:, None] * stride + np.arange(taps) * spread
  where = where - low
  inside = (where >= 0) & (where <= (size - 1) * holes)
  return int(np.sum(inside & (where % holes == 0)))
