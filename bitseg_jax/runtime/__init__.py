"""What every run needs: its settings, parts, devices, state and files."""
