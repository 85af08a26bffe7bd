"""Several processes, and any order of their devices, change no number."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

# Evaluates a run with devices of a given order, and reports what it scored.
PROGRAM = """
import json, sys
import jax
from jax.sharding import AxisType, Mesh
import numpy as np
from bitseg_jax.evaluation import evaluate
from bitseg_jax.runtime import checkpoint, sharding

workdir, output, port, index, count, order = sys.argv[1:]
if int(count) > 1:
  jax.distributed.initialize(f'localhost:{port}', int(count), int(index))
order = json.loads(order)

def make_mesh(fsdp=1):
  devices = np.array(jax.devices())[order].reshape(-1, fsdp)
  return Mesh(devices, ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)

sharding.make_mesh = make_mesh
config = checkpoint.read_config(workdir)
config.data.num_eval_scenes = 11
config.eval.batch_size = 4
config.eval.num_samples = 2
config.train.batch_size = 4
evaluate.evaluate(config, workdir, output)
"""

# (processes, devices of each, order): the last are those of TPU v4-16 and
# v5e-16, where neighbours in the mesh belong to other processes.
CLUSTERS = [
  (1, 4, [0, 1, 2, 3]),
  (1, 4, [2, 0, 3, 1]),
  (2, 2, [0, 2, 1, 3]),
  (4, 1, [0, 2, 1, 3]),
]


def free_port():
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]


def evaluate(workdir, output, count, devices, order):
  output.mkdir()
  environ = {**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices)}
  port = str(free_port())
  started = [
    subprocess.Popen(
      [
        *(sys.executable, '-c', PROGRAM, str(workdir), str(output), port),
        *(str(i), str(count), json.dumps(order)),
      ],
      env={**environ, 'PYTHONPATH': '.'},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(count)
  ]
  for process in started:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
  return json.loads((output / 'results.json').read_text())


@pytest.mark.slow
def test_evaluation_scores_the_same_images_on_any_cluster(random_run, tmp_path):
  """To the last digit, in whatever order the mesh has the devices."""
  results = [
    evaluate(random_run, tmp_path / str(i), *cluster)
    for i, cluster in enumerate(CLUSTERS)
  ]
  assert results[0]['num_images'] == 11
  scores = [image['ari'] for image in results[0]['per_image'].values()]
  assert len({tuple(row) for row in scores}) > 5  # the images do differ
  assert np.ptp(scores) > 0
  for other in results[1:]:
    assert other == results[0]
