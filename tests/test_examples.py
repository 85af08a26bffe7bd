"""The examples run, shortened."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


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


def test_confidence_is_compared_with_the_annotators(tmp_path):
  ids = np.arange(16).repeat(16).reshape(16, 16) // 8  # two halves
  folders = tmp_path / 'images', tmp_path / 'labels', tmp_path / 'predicted'
  for folder in folders:
    folder.mkdir()
  for k in range(10):
    photo = np.full((16, 16, 3), 9 * k, np.uint8)
    Image.fromarray(photo).save(folders[0] / f'{k}.png')
    Image.fromarray((ids + 1).astype(np.uint8)).save(folders[1] / f'{k}.png')
    # The upper half is found; the lower one is cut in two, so IoU is 1/2.
    answer = ids + (np.arange(16)[:, None] >= 12)
    image = Image.fromarray((answer + 1).astype(np.uint8))
    image.save(folders[2] / f'{k}_labels.png')
    segments = [{'id': i + 1, 'confidence': c} for i, c in enumerate((1, 0, 1))]
    written = json.dumps({'segments': segments})
    (folders[2] / f'{k}.json').write_text(written)
  data, plot = tmp_path / 'prepared', tmp_path / 'plot.png'
  for command in (
    [
      *('-m', 'bitseg_jax', 'prepare', '--dataset=folder'),
      *(f'--source={tmp_path}', f'--output={data}'),
    ],
    ['examples/confidence.py', plot, 'val', f'{data}={folders[2]}'],
  ):
    done = subprocess.run(
      [sys.executable, *command], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
  cells = [c.strip() for c in done.stdout.splitlines()[-1].split('|')[1:-1]]
  # Off by 0 for the upper half, 1/2 for both others.
  assert cells[:5] == ['prepared', '3', '0.67', '0.67', '0.333']
  assert plot.stat().st_size
