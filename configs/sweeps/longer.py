"""Beyond Figure 7: does the best loss weight change with longer training?"""

X_LABEL = ''
ROWS = {
  f'{weight}, {steps} steps': {
    'diffusion.loss_weight': weight,
    'diffusion.decoupled': weight == 'sigmoid',
    'train.num_steps': steps,
    'train.warmup_steps': 50,
    'train.decay_steps': steps * 5 // 8,
  }
  for steps in (400, 2400)
  for weight in ('sigmoid', 'uniform')
}
PAPER = {}
