"""Figure 6: the best of N samples (an oracle), and answers without one."""

_COUNTS = {
  'one': (1,),
  'oracle': (2, 4, 8, 16),
  'medoid': (2, 4, 8, 16),
  'consensus': (2, 4, 8, 16),
}
# All rows look at the same 16 samples.
ANSWERS = {
  f'{answer}, {count}': (answer, count)
  for answer, counts in _COUNTS.items()
  for count in counts
}
ROWS = {name: {'eval.num_samples': 16} for name in ANSWERS}
PAPER = {}
