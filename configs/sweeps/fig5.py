"""Figure 5: steps of the sampler, of one trained model."""

ROWS = {
  str(steps): {'sample.num_steps': steps}
  for steps in (1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 50, 100, 200)
}
PAPER = {}
