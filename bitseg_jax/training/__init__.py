"""Training: the compiled step, the loop around it, and distillation."""
