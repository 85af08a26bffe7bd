"""Beyond the paper: training and sampling options, one at a time."""

_UNIFORM = {'diffusion.loss_weight': 'uniform', 'diffusion.decoupled': False}
ROWS = {
  'as the paper': {},
  'sigmoid, not decoupled': {'diffusion.decoupled': False},
  'uniform weight': _UNIFORM,
} | {
  f'uniform, {name}': _UNIFORM | settings
  for name, settings in {
    'EMA 0.98': {'train.ema_decay': 0.98},
    'EMA 0.999': {'train.ema_decay': 0.999},
  }.items()
}
PAPER = {}
