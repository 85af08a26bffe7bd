"""Compares the confidence that predict writes with what annotators drew.

python examples/confidence.py PLOT SPLIT DATASET=PREDICTED [...]

The truth about a segment is the IoU with the best entity of an annotator, mean
over annotators: what its confidence is over samples.
"""

import json
import pathlib
import sys

import numpy as np

from bitseg_jax import metrics
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import pictures, reading
from bitseg_jax.metrics import uncertainty


def said_and_true(record, labels):
  """Confidence and truth of each segment that somebody labelled, [K] each."""
  written = labels.with_name(labels.name.replace('_labels.png', '.json'))
  segments = json.loads(written.read_text())['segments']
  said = np.array([segment['confidence'] for segment in segments])
  id_maps = list(record['id_maps'])
  (answer,) = reading.load([labels], id_maps[0].shape)  # ids from 0
  true = np.full((len(id_maps), len(said)), np.nan)
  for i, id_map in enumerate(id_maps):
    table, _, ids = metrics.contingency(id_map, answer)
    true[i, ids] = metrics.iou_matrix(table).max(axis=0)
  seen = np.isfinite(true).any(axis=0)
  return said[seen], np.nanmean(true[:, seen], axis=0)


plot, split, *pairs = sys.argv[1:]
figure = pictures.new_figure()
axes = figure.subplots()
axes.plot([0, 1], [0, 1], color='0.7')
print('| dataset | segments | says | is | off | correlation |')
print('|---|---|---|---|---|---|')
for pair in pairs:
  data, _, predicted = pair.rpartition('=')
  source = splits.open_split(data, split, 8)
  records = {record['name']: record for record in source}
  found = reading.find(predicted, records, 'labels')
  rows = [said_and_true(records[name], *parts) for name, parts in found.items()]
  said, true = np.concatenate(rows, axis=1)
  counts = uncertainty.count_reliability(said, true)
  name, reliability = pathlib.Path(data).name, uncertainty.calibration(counts)
  bins = np.array([row for row in reliability['bins'] if row[2] > 0.002])
  axes.plot(bins[:, 0], bins[:, 1], 'o-', label=name)
  print(
    f'| {name} | {len(said)} | {said.mean():.2f} | {true.mean():.2f} |',
    f'{reliability["ece"]:.3f} | {np.corrcoef(said, true)[0, 1]:.2f} |',
  )
axes.set_xlabel('Confidence of a segment')
axes.set_ylabel("IoU with annotators' best entities")
axes.legend()
pictures.save_figure(figure, plot)
