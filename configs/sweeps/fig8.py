"""Figure 8: eps-prediction, or x without tanh, leaves noisy specks."""

ROWS = {
  'x, tanh': {},
  'x, no tanh': {'diffusion.tanh': False},
  'eps': {'diffusion.pred_type': 'eps', 'diffusion.tanh': False},
}
PAPER = {}
