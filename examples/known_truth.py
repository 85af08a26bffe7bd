"""Compares what a model of configs/ambiguous.py draws with what is true.

python examples/known_truth.py WORKDIR [SCENES [SAMPLES]]
"""

import functools
import sys

import numpy as np

from bitseg_jax.data import pipeline
from bitseg_jax.data.ambiguous import OUTLINES, AmbiguousScenes
from bitseg_jax.evaluation import draw_samples, known_truth
from bitseg_jax.runs import build, devices, weights

# Steps and guidance of the sampler.
SETTINGS = [
  (8, 0.0),
  (8, 1.0),
  (8, 3.0),
  (1, 0.0),
  (2, 0.0),
  (4, 0.0),
  (32, 0.0),
]

found = weights.read(sys.argv[1])
num_scenes, num_samples = (
  int(sys.argv[k]) if len(sys.argv) > k else default
  for k, default in ((2, 40), (3, 16))
)
config, mesh = found.config, devices.make_mesh()
parts, size = build.build(config), config.data.image_size
num_scenes = min(num_scenes, config.data.num_eval_scenes)
scenes = AmbiguousScenes(num_scenes, size, seed=config.seed)  # those held out
modes = [scenes.modes(i) for i in range(num_scenes)]
examples = [
  functools.partial(pipeline.evaluation_example, scenes[i], size)
  for i in range(num_scenes)
]


def shares(given, which, choice):
  """Mean share of a choice, where it is unlikely, likely, or anywhere."""
  hit = [(m.choices[:, which] == choice) for m in modes]
  true = np.array(
    [m.probabilities[h].sum() for m, h in zip(modes, hit, strict=True)]
  )
  mean = np.array([s[h].sum() for s, h in zip(given, hit, strict=True)])
  groups = sorted(set(true.round(2)))
  return ' / '.join(f'{mean[true.round(2) == g].mean():.2f}' for g in groups)


def row(name, samples):
  """Prints how samples, by scene, compare with the truth."""
  compared = [
    known_truth.compare(s, m.id_maps, m.probabilities)
    for s, m in zip(samples, modes, strict=True)
  ]
  given = [c.shares for c in compared]
  means = known_truth.summarize(compared)
  outline = ' / '.join(shares(given, 2, k) for k in range(len(OUTLINES)))
  print(
    f'| {name} | {shares(given, 0, 1)} | {shares(given, 1, 1)} | {outline} |',
    f'{means["ged"]:.3f} | {means["ece"]:.3f} | {means["confidence"]:.2f} |',
    f'{means["true_confidence"]:.2f} | {means["confidence_error"]:.3f} |',
    flush=True,
  )


rng = np.random.default_rng(0)
draw_true = lambda m: m.id_maps[rng.choice(12, num_samples, p=m.probabilities)]
print(
  '| samples | bar in parts | shadow | outline | GED | ECE | says | is | off |'
)
print('|---|---|---|---|---|---|---|---|---|')
print('| the truth | .25 / .75 | .25 / .75 | .25 / .50 / .25 | 0 | 0 | | | |')
row('drawn from the truth', [draw_true(m) for m in modes])
for num_steps, guidance_weight in SETTINGS:
  options = build.SamplerOptions(num_steps, guidance_weight=guidance_weight)
  functions = draw_samples.make_functions(parts, options, mesh)
  counts = [num_samples] * num_scenes
  jobs = draw_samples.Jobs(examples, counts, seed=0)
  samples = [[] for _ in modes]
  for i, _, x_hat in draw_samples.draw(functions, found.params, jobs, mesh, 40):
    samples[i] += list(np.asarray(parts.codec.decode(x_hat)))
  row(
    f'{num_steps} steps, guidance {guidance_weight:g}',
    [np.stack(of_scene) for of_scene in samples],
  )
