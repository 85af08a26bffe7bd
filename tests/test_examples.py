"""The examples run, shortened."""

import re
import subprocess
import sys

import pytest


def test_own_loop_trains_and_scores():
  done = subprocess.run(
    [sys.executable, 'examples/own_loop.py', '3'],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert re.fullmatch(r'loss \d\.\d+, ARI .* -?\d\.\d\d\n', done.stdout)


@pytest.mark.slow
def test_known_truth_knows_the_truth(random_run):
  done = subprocess.run(
    [sys.executable, 'examples/known_truth.py', random_run, '2', '8'],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  rows = [line.split('|')[1:-1] for line in done.stdout.splitlines()]
  assert len({len(row) for row in rows}) == 1  # a table
  distance = {row[0].strip(): float(row[4]) for row in rows[2:]}
  drawn = distance.pop('drawn from the truth')
  assert distance.pop('the truth') == 0
  assert '8 steps, guidance 0' in distance
  # What random weights draw is far from it.
  assert drawn < 0.15 < 0.5 < min(distance.values())
