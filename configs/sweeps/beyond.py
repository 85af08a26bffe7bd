"""Beyond the paper: training and sampling options, one at a time."""

X_LABEL = ''
_UNIFORM = {'diffusion.loss_weight': 'uniform', 'diffusion.decoupled': False}
ROWS = {
  'as the paper': {},
  'sigmoid, not decoupled': {'diffusion.decoupled': False},
  'uniform weight': _UNIFORM,
} | {
  f'uniform, {name}': _UNIFORM | settings
  for name, settings in {
    'self-conditioning': {'diffusion.self_conditioning': True},
    'cross-entropy': {'diffusion.loss': 'cross_entropy'},
    'size power 0.5': {'diffusion.size_power': 0.5},
    'EMA 0.98': {'train.ema_decay': 0.98},
    'EMA 0.999': {'train.ema_decay': 0.999},
    'guided at t < 0.8': {'sample.guidance_interval': (0.0, 0.8)},
    'guided at t > 0.2': {'sample.guidance_interval': (0.2, 1.0)},
    'asymmetric, 1 step': {'sample.time_difference': 1.0},
    'DPM-Solver++': {'sample.method': 'dpmpp'},
  }.items()
}
PAPER = {}
