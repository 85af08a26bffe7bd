"""Several processes, and any order of their devices, change no number."""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from bitseg_jax.runs import devices

# Evaluates a run with devices of a given order, and reports what it scored.
PROGRAM = """
import json, sys
import jax
from jax.sharding import AxisType, Mesh
import numpy as np
from bitseg_jax.evaluation import evaluate
from bitseg_jax.runs import checkpoint, devices

workdir, output, port, index, count, order = sys.argv[1:]
if int(count) > 1:
  jax.distributed.initialize(f'localhost:{port}', int(count), int(index))
order = json.loads(order)

def make_mesh(fsdp=1):
  ordered = np.array(jax.devices())[order].reshape(-1, fsdp)
  return Mesh(ordered, ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)

devices.make_mesh = make_mesh
config = checkpoint.read_config(workdir)
config.data.num_eval_scenes = 11
config.eval.batch_size = 4
config.eval.num_samples = 4  # by_num_samples holds one, two and four
config.train.batch_size = 4
evaluate.evaluate(config, workdir, output)
"""

# (processes, devices of each, order): the last are those of TPU v4-16 and
# v5e-16, where neighbours in the mesh belong to other processes.
CLUSTERS = [
  (1, 4, [0, 1, 2, 3]),
  (1, 4, [2, 0, 3, 1]),
  (2, 2, [0, 1, 2, 3]),
  (4, 1, [0, 1, 2, 3]),
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
    said, _ = process.communicate(timeout=900)
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
  assert list(results[0]['by_num_samples']) == ['1', '2', '4']
  scores = [image['ari'] for image in results[0]['per_image'].values()]
  assert len({tuple(row) for row in scores}) > 5  # the images do differ
  assert np.ptp(scores) > 0
  for other in results[1:]:
    assert other == results[0]


TINY = [
  '--config=quickstart',
  '--config.train.optimizer=adamw',  # muon takes longer to compile
  '--mode=train',
  '--config.data.image_size=16',
  '--config.model.base_channels=16',
  '--config.model.channel_mults=(1,)',
  '--config.model.attention_levels=()',
  '--config.train.batch_size=2',
  '--config.train.num_steps=1000000',
  '--config.train.log_every=2',
  '--config.eval.during_training=0',
  '--num_processes=2',
]


def start_two(workdir, only=(0, 1), *flags):
  place = f'--workdir={workdir}', f'--coordinator=localhost:{free_port()}'
  return [
    subprocess.Popen(
      [
        *(sys.executable, '-m', 'bitseg_jax.main', *TINY, *place, *flags),
        f'--process_id={i}',
      ],
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in only
  ]


def ended(process, seconds):
  """All that a process said that failed in time."""
  _, said = process.communicate(timeout=seconds)
  assert process.returncode not in (0, 75)
  return said


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_the_loss_of_a_partner_ends_the_others(tmp_path, victim):
  both = start_two(tmp_path)
  while (
    not (tmp_path / 'metrics.jsonl').exists()
    or not (tmp_path / 'metrics.jsonl').stat().st_size
  ):
    assert all(process.poll() is None for process in both)
    time.sleep(0.2)
  both[victim].kill()
  ended(both[1 - victim], 90)
  both[victim].communicate()


@pytest.mark.slow
@pytest.mark.parametrize('here', [0, 1])
def test_a_partner_that_never_comes_is_told_in_one_line(tmp_path, here):
  (alone,) = start_two(tmp_path, [here], '--partner_timeout=3')
  last = ended(alone, 90).strip().splitlines()[-1]
  assert f'error: process {here} waited 3 s at localhost:' in last


def test_a_port_that_is_taken_is_told_in_one_line():
  with socket.socket() as other:
    other.bind(('', 0))
    other.listen()
    address = f'localhost:{other.getsockname()[1]}'
    with pytest.raises(ValueError, match=f'{address}: .* already in use'):
      devices.join(address, 2, 0)
