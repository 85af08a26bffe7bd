"""Figure 9: input scale b."""

ROWS = {
  str(scale): {'diffusion.input_scale': scale}
  for scale in (0.01, 0.03, 0.1, 0.3, 1.0)
}
PAPER = {}
