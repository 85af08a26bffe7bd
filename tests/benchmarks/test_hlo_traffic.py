"""Work, traffic and communication are counted as on paper.

The texts are shortened from what XLA compiles for TPU v5e. S(1) is the chip's
fast memory: what lies there does not move in HBM.
"""

import pytest

from bitseg_jax.benchmarks import hlo_traffic, topology

CONVOLUTION = """
HloModule jit_f, is_scheduled=true

%fused (p0: bf16[8,16,16,32], p1: bf16[3,3,32,64]) -> bf16[8,16,16,64] {
  %p0 = bf16[8,16,16,32]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[3,3,32,64]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %c = bf16[8,16,16,64]{3,2,1,0:T(8,128)(2,1)} convolution(%p0, %p1), \
window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
}

ENTRY %main (a: bf16[8,16,16,32], k: bf16[3,3,32,64]) -> bf16[8,16,16,64] {
  %a = bf16[8,16,16,32]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %k = bf16[3,3,32,64]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %copy-start = (bf16[3,3,32,64]{3,2,1,0:T(8,128)(2,1)S(1)}, \
bf16[3,3,32,64]{3,2,1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%k)
  %copy-done = bf16[3,3,32,64]{3,2,1,0:T(8,128)(2,1)S(1)} \
copy-done(%copy-start)
  ROOT %fusion = bf16[8,16,16,64]{3,2,1,0:T(8,128)(2,1)} \
fusion(%a, %copy-done), kind=kOutput, calls=%fused, \
metadata={op_name="jit(f)/conv" stack_frame_id=1}
}
"""
IMAGE, KERNEL, RESULT = 8 * 16 * 16 * 32 * 2, 9 * 32 * 64 * 2, 8 * 16**2 * 128


def test_a_convolution_is_counted_as_on_paper():
  found = hlo_traffic.count(CONVOLUTION)
  # Of 3 taps along 16 pixels, the outermost two fall on padding once each.
  taps = 3 * 16 - 2
  assert found.flops == 2 * 8 * 32 * 64 * taps**2
  # The kernel is read once, by the copy to fast memory.
  assert (found.moved, found.aside) == (IMAGE + RESULT, KERNEL)
  # 32 and 64 channels lie in tiles of 128.
  assert found.tiled == 4 * IMAGE + 2 * KERNEL + 2 * RESULT
  assert found.by_operation['jit(f)/conv'] == IMAGE + RESULT
  assert not found.collectives and not found.host


def test_gradients_of_convolutions_do_the_same_work():
  kernel = (
    CONVOLUTION.replace('p0, %p1)', 'p0, %p2)')
    .replace('p1 = bf16[3,3,32,64]', 'p2 = bf16[8,16,16,64]')
    .replace('%c = bf16[8,16,16,64]', '%c = bf16[3,3,32,64]')
    .replace('size=3x3', 'size=16x16')
    .replace('b01f_01io->b01f', 'f01b_i01o->01bf')
  )
  once = hlo_traffic.count(CONVOLUTION).flops
  assert hlo_traffic.count(kernel).flops == once


NORM = """
ENTRY %main (x: f32[4,64,64,32]) -> f32[4,64,64,32] {
  %x = f32[4,64,64,32]{3,2,1,0:T(8,128)} parameter(0)
  %sums = (f32[4,32]{1,0:T(4,128)S(1)}, f32[4,32]{1,0:T(4,128)S(1)}) \
fusion(%x), kind=kLoop, calls=%reduce
  %a = f32[4,32]{1,0:T(4,128)S(1)} get-tuple-element(%sums), index=0
  %b = f32[4,32]{1,0:T(4,128)S(1)} get-tuple-element(%sums), index=1
  ROOT %y = bf16[4,64,64,32]{3,2,1,0:T(8,128)(2,1)} fusion(%x, %a, %b), \
kind=kLoop, calls=%scale
}

%reduce (p: f32[4,64,64,32]) -> f32[4,32] {
  %p = f32[4,64,64,32]{3,2,1,0:T(8,128)} parameter(0)
}

%scale (q: f32[4,64,64,32]) -> f32[4,64,64,32] {
  %q = f32[4,64,64,32]{3,2,1,0:T(8,128)} parameter(0)
}
"""


def test_a_norm_reads_its_input_twice_and_writes_once():
  values = 4 * 64 * 64 * 32
  assert hlo_traffic.count(NORM).moved == values * (4 + 4 + 2)


def test_a_sum_over_chips_and_the_time_it_takes():
  text = """
ENTRY %main (x: f32[1000,1024]) -> f32[1000,1024] {
  %x = f32[1000,1024]{1,0:T(8,128)} parameter(0)
  ROOT %r = f32[1000,1024]{1,0:T(8,128)} all-reduce(%x), channel_id=1, \
to_apply=%add
}
"""
  found = hlo_traffic.count(text)
  assert found.collectives == {'all-reduce': (1, 4_096_000)}
  assert found.moved == found.tiled == 8_192_000
  chip = topology.Chip(flops=1e12, memory=1e9, links=1e8, capacity=16)
  rows = topology.count_rows('train', found, chip, 40, 4)
  rows = {name: (value, unit) for name, value, unit in rows}
  # 8.2 MB pass links of 100 MB/s, which take longer than the memory.
  assert rows['train: time that memory take'][0] == pytest.approx(8.192)
  value, unit = rows['train: least time']
  assert value == pytest.approx(81.92) and unit == 'ms, bound by interconnect'
  assert rows['train: images at most'][0] == pytest.approx(40 / 0.08192)


def test_a_collective_in_pieces_counts_once():
  line = """
  %g{0} = f32[8,128]{{1,0:T(8,128)}} all-gather(%x), channel_id={0}
  %h{0} = f32[8,128]{{1,0:T(8,128)}} all-gather(%x), channel_id=1"""
  text = f"""
ENTRY %main (x: f32[2,128]) -> f32[8,128] {{
  %x = f32[2,128]{{1,0:T(2,128)}} parameter(0){line.format(2)}{line.format(3)}
}}
"""
  size = 8 * 128 * 4
  assert hlo_traffic.count(text).collectives == {'all-gather': (3, 3 * size)}


LOOP = """
%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %y = f32[8,128]{1,0:T(8,128)} negate(%x)
}

%test (q: (s32[], f32[8,128])) -> pred[] {
  %n = s32[]{:T(128)} constant(7)
  %q = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8,128]) -> (s32[], f32[8,128]) {
  %x = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  ROOT %w = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%x), \
condition=%test, body=%body
}
"""


def test_a_loop_counts_as_often_as_it_runs():
  assert hlo_traffic.count(LOOP).moved == 7 * 2 * 8 * 128 * 4
  with pytest.raises(ValueError, match='no known number of rounds'):
    hlo_traffic.count(LOOP.replace('direction=LT', 'direction=NE'))


def test_a_slice_moves_what_it_takes():
  text = """
ENTRY %main (x: f32[100,8,128]) -> f32[2,8,128] {
  %x = f32[100,8,128]{2,1,0:T(8,128)} parameter(0)
  %s = ((f32[100,8,128]{2,1,0:T(8,128)}), f32[2,8,128]{2,1,0:T(8,128)S(1)}, \
s32[]{:S(2)}) slice-start(%x), slice={[0:2], [0:8], [0:128]}
  ROOT %d = f32[2,8,128]{2,1,0:T(8,128)S(1)} slice-done(%s)
}
"""
  assert hlo_traffic.count(text).aside == 2 * 8 * 128 * 4


def test_the_largest_batch_lies_on_the_line():
  assert topology.largest_batch((64, 9.0), (32, 5.0), 16) == 64 + 56
  assert topology.largest_batch((2, 17.0), (1, 16.5), 16) == 0
  assert topology.largest_batch((2, 1.0), (1, 1.0), 16) is None


def test_no_program_is_told():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo_traffic.count('HloModule nothing')


def test_unknown_slices_are_refused():
  with pytest.raises(ValueError, match='give a chip of v4, v5e'):
    topology.open_slice('v9:2x2')
  with pytest.raises(ValueError, match='give a chip'):
    topology.open_slice('v5e')


def test_a_missing_libtpu_is_told(monkeypatch):
  monkeypatch.setattr(topology.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r'pip install .bitseg-jax\[tpu\]'):
    topology.open_slice('v5e:2x2')
