"""Figure 6: the best of N samples, chosen by the truth (an oracle)."""

X_LABEL = 'samples an image'
ROWS = {str(n): {'eval.num_samples': n} for n in (1, 2, 4, 8, 16)}
PAPER = {}
