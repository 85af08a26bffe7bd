"""Beyond the paper: training and sampling options, one at a time."""

X_LABEL = ''
ROWS = {
  'as the paper': {},
  'sigmoid, not decoupled': {'diffusion.decoupled': False},
  'self-conditioning': {'diffusion.self_conditioning': True},
  'cross-entropy': {'diffusion.loss': 'cross_entropy'},
  'size power 0.5': {'diffusion.size_power': 0.5},
  'guided at t < 0.8': {'sample.guidance_interval': (0.0, 0.8)},
  'guided at t > 0.2': {'sample.guidance_interval': (0.2, 1.0)},
  'asymmetric, 1 step': {'sample.time_difference': 1.0},
}
PAPER = {}
