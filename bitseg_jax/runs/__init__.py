"""What every run needs: settings, parts, devices, checkpoints, logs."""
