"""Beyond Figure 5: why do more steps hurt? Steps by sampler, of one model."""

X_LABEL = 'sampler and steps'
_WAYS = {
  'ddpm': {},
  'ddpm, small': {'sample.variance': 'small'},
  'ddpm, w 0': {'sample.guidance_weight': 0.0},
  'ddim': {'sample.method': 'ddim'},
  'dpmpp': {'sample.method': 'dpmpp'},
}
ROWS = {
  f'{way}, {steps}': {**settings, 'sample.num_steps': steps}
  for way, settings in _WAYS.items()
  for steps in (4, 8, 16, 64)
}
PAPER = {}
