"""Beyond Figure 5: why do more steps hurt? Samplers by steps, of one model."""

_WAYS = {
  'ddpm': {},
  'ddpm, small': {'sample.variance': 'small'},
  'ddpm, w 0': {'sample.guidance_weight': 0.0},
  'ddim': {'sample.method': 'ddim'},
  'ddim, w 0': {'sample.method': 'ddim', 'sample.guidance_weight': 0.0},
}
_COUNTS = (1, 2, 4, 8, 16, 64)
ROWS = {
  f'{way}, {steps}': settings | {'sample.num_steps': steps}
  for way, settings in _WAYS.items()
  for steps in _COUNTS
}
# Are single samples worse, or all of them together? Two answers of 8 samples.
_OF_8 = {'one': ('one', 1), 'consensus': ('consensus', 8)}
ROWS |= {
  f'{name} of 8, {steps}': {'eval.num_samples': 8, 'sample.num_steps': steps}
  for steps in _COUNTS
  for name in _OF_8
}
ANSWERS = {
  f'{name} of 8, {steps}': answer
  for steps in _COUNTS
  for name, answer in _OF_8.items()
}
PAPER = {}
