"""Scores maps of other methods before and after the model has changed them.

python examples/repair.py DATASET [EVERY]
"""

import sys

import numpy as np

from bitseg_jax import Segmenter, baselines, metrics
from bitseg_jax.data import transforms
from bitseg_jax.data.prepared import splits

STRENGTHS = 0.1, 0.3, 0.5, 0.7
SHOWN = 'ari', 'covering'
SIDE, NUM_SAMPLES, NUM_STEPS = 128, 4, 8

segmenter = Segmenter.from_pretrained()
source = splits.open_split(sys.argv[1], 'val')
scores = {}


def note(begun, strength, id_map, annotations):
  """Keeps the mean scores over annotators."""
  tables = [metrics.contingency(a, id_map)[0] for a in annotations]
  of_all = [metrics.compute('table', table) for table in tables]
  row = [np.mean([of[name] for of in of_all]) for name in SHOWN]
  scores.setdefault(begun, {}).setdefault(strength, []).append(row)


for i in range(0, len(source), int(sys.argv[2]) if sys.argv[2:] else 1):
  example = transforms.evaluation_example(source[i], SIDE)
  height, width = example['size']
  photo = example['image'][:height, :width]
  annotations = [ids[:height, :width] for ids in example['id_maps']]
  plain = segmenter.segment(photo, NUM_SAMPLES, num_steps=NUM_STEPS)
  for name in ('Felzenszwalb', 'SLIC'):
    start = baselines.make_methods(SIDE)[name](photo).astype(int)
    start -= start.min()
    note(name, 'as it is', start, annotations)
    for strength in STRENGTHS:
      result = segmenter.segment(
        photo,
        NUM_SAMPLES,
        num_steps=NUM_STEPS,
        start=start,
        strength=strength,
      )
      note(name, f'{strength:g}', result.id_map, annotations)
    note(name, 'from noise', plain.id_map, annotations)

columns = list(next(iter(scores.values())))
print('| begun from |', ' | '.join(columns), '|')
print('|---' * (1 + len(columns)) + '|')
for name, of in scores.items():
  means = [np.mean(rows, axis=0) for rows in of.values()]
  cells = [' / '.join(f'{value:.3f}' for value in mean) for mean in means]
  print(f'| {name} |', ' | '.join(cells), '|')
