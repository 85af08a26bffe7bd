"""The examples run, shortened."""

import re
import subprocess
import sys


def test_own_loop_trains_and_scores():
  done = subprocess.run(
    [sys.executable, 'examples/own_loop.py', '3'],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert re.fullmatch(r'loss \d\.\d+, ARI .* -?\d\.\d\d\n', done.stdout)
