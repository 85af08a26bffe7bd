"""Training: the compiled step, the loop around it, and sweeps of many runs."""
