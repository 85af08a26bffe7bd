"""Figure 7: what is predicted, and how the loss is weighted."""

_WEIGHTS = ('sigmoid', 'uniform', 'SNR', 'SNR_plus1', 'SNR_trunc')
ROWS = {
  f'{pred}, {weight}': {
    'diffusion.pred_type': pred,
    'diffusion.tanh': pred == 'x',
    'diffusion.loss_weight': weight,
    'diffusion.decoupled': weight == 'sigmoid',
  }
  for pred in ('x', 'eps', 'v')
  for weight in _WEIGHTS
}
PAPER = {}
