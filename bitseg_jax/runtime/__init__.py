"""Infrastructure of every run: config, devices, checkpoints, state, logging."""
