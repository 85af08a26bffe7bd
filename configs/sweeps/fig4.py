"""Figure 4: guidance weight, of one trained model."""

ROWS = {
  str(weight): {'sample.guidance_weight': float(weight)}
  for weight in (-1, -0.1, 0, 0.1, 0.3, 1, 2, 3, 10)
}
PAPER = {}
