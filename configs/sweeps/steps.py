"""Beyond Figure 5: why do more steps hurt? Samplers by steps, of one model."""

X_LABEL = 'sampling steps'
_WAYS = {
  'ddpm': {},
  'ddpm, small': {'sample.variance': 'small'},
  'ddpm, w 0': {'sample.guidance_weight': 0.0},
  'ddim': {'sample.method': 'ddim'},
  'ddim, w 0': {'sample.method': 'ddim', 'sample.guidance_weight': 0.0},
  'dpmpp': {'sample.method': 'dpmpp'},
}
_COUNTS = (1, 2, 4, 8, 16, 64)
ROWS = {
  f'{way}, {steps}': settings | {'sample.num_steps': steps}
  for way, settings in _WAYS.items()
  for steps in _COUNTS
}
# Are single samples worse, or the whole distribution? The same, of 8 samples.
ANSWERS = {}
for _steps in _COUNTS:
  for _answer in ('one', 'consensus'):
    _name = f'{_answer} of 8, {_steps}'
    ROWS[_name] = {'eval.num_samples': 8, 'sample.num_steps': _steps}
    ANSWERS[_name] = (_answer, 1 if _answer == 'one' else 8)
PAPER = {}
