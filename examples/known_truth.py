"""Compares what a model of configs/ambiguous.py draws with what is true.

python examples/known_truth.py WORKDIR [SCENES [SAMPLES]]
"""

import functools
import sys
from typing import NamedTuple

import numpy as np

from bitseg_jax import metrics
from bitseg_jax.data import transforms
from bitseg_jax.data.ambiguous import OUTLINES, AmbiguousScenes
from bitseg_jax.evaluation import consensus, draw_samples
from bitseg_jax.metrics import uncertainty
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


class Comparison(NamedTuple):
  """How the samples of one image compare with the truth."""

  shares: np.ndarray  # [M], of the samples that are nearest to each mode
  ged: float  # squared energy distance of samples and truth, mean 0 for equals
  reliability: np.ndarray  # of "both pixels lie in one entity", to be summed
  confidence: np.ndarray  # [K, 2], of each segment of the consensus: said, true


def compare(samples, modes, probabilities):
  """Compares samples [N, H, W] with the modes [M, H, W] and their chances."""
  count, shape = len(samples), samples.shape[1:]
  across = np.array(
    [[1 - metrics.adjusted_rand_index(m, s) for s in samples] for m in modes]
  )
  # Pairs of one sample with itself would count as agreement.
  among_samples = metrics.pairwise_distances(samples).sum()
  among_modes = probabilities @ metrics.pairwise_distances(modes)
  distance = (
    2 * probabilities @ across.mean(axis=1)
    - among_modes @ probabilities
    - among_samples / (count * (count - 1))
  )
  pairs = uncertainty.draw_pairs(np.ones(shape, bool))
  reliability = uncertainty.count_reliability(
    uncertainty.share_together(samples, pairs),
    uncertainty.share_together(modes, pairs, probabilities),
  )
  answer = consensus.consensus(samples)
  said = consensus.stability(answer, samples)
  true = [consensus.stability(answer, mode[None]) for mode in modes]
  return Comparison(
    np.bincount(across.argmin(axis=0), minlength=len(modes)) / count,
    float(distance),
    reliability,
    np.stack([said, probabilities @ np.array(true)], axis=1),
  )


def summarize(compared):
  """GED, calibration error, confidence: as said, as true, and the error."""
  counts = sum(one.reliability for one in compared)
  said, true = np.concatenate([one.confidence for one in compared]).T
  return {
    'ged': np.mean([one.ged for one in compared]),
    'ece': uncertainty.calibration(counts)['ece'],
    'confidence': said.mean(),
    'true_confidence': true.mean(),
    'confidence_error': abs(said - true).mean(),
  }


def shares(modes, given, which, choice):
  """Mean share of a choice, where it is unlikely, likely, or anywhere."""
  hit = [(m.choices[:, which] == choice) for m in modes]
  true = np.array(
    [m.probabilities[h].sum() for m, h in zip(modes, hit, strict=True)]
  )
  mean = np.array([s[h].sum() for s, h in zip(given, hit, strict=True)])
  groups = sorted(set(true.round(2)))
  return ' / '.join(f'{mean[true.round(2) == g].mean():.2f}' for g in groups)


def print_row(name, modes, samples):
  """Prints how samples, by scene, compare with the truth."""
  compared = [
    compare(s, m.id_maps, m.probabilities)
    for s, m in zip(samples, modes, strict=True)
  ]
  share = functools.partial(shares, modes, [c.shares for c in compared])
  outline = ' / '.join(share(2, k) for k in range(len(OUTLINES)))
  means = summarize(compared)
  print(
    f'| {name} | {share(0, 1)} | {share(1, 1)} | {outline} |',
    f'{means["ged"]:.3f} | {means["ece"]:.3f} | {means["confidence"]:.2f} |',
    f'{means["true_confidence"]:.2f} | {means["confidence_error"]:.3f} |',
    flush=True,
  )


def main(workdir, num_scenes=40, num_samples=16):
  """Compares samples of a run, by several settings, with the truth."""
  found, mesh = weights.read(workdir), devices.make_mesh()
  config = found.config
  parts, size = build.build(config), config.data.image_size
  num_scenes = min(int(num_scenes), config.data.num_eval_scenes)
  num_samples = int(num_samples)
  scenes = AmbiguousScenes(num_scenes, size, seed=config.seed)  # those held out
  modes = [scenes.modes(i) for i in range(num_scenes)]
  examples = [
    functools.partial(transforms.evaluation_example, scenes[i], size)
    for i in range(num_scenes)
  ]
  columns = 'samples', 'bar in parts', 'shadow', 'outline', 'GED', 'ECE'
  print('|', ' | '.join((*columns, 'says', 'is', 'off')), '|')
  print('|---|---|---|---|---|---|---|---|---|')
  print('| the truth | .25 / .75 | .25 / .75 | .25 / .50 / .25 | 0 | 0 | | | |')
  rng = np.random.default_rng(0)
  drawn = [
    m.id_maps[rng.choice(12, num_samples, p=m.probabilities)] for m in modes
  ]
  print_row('drawn from the truth', modes, drawn)
  for num_steps, guidance_weight in SETTINGS:
    options = build.SamplerOptions(num_steps, guidance_weight=guidance_weight)
    functions = draw_samples.make_functions(parts, options, mesh)
    jobs = draw_samples.Jobs(examples, [num_samples] * num_scenes, seed=0)
    samples = [[] for _ in modes]
    for i, _, x_hat in draw_samples.draw(
      functions, found.params, jobs, mesh, 40
    ):
      samples[i] += list(np.asarray(parts.codec.decode(x_hat)))
    print_row(
      f'{num_steps} steps, guidance {guidance_weight:g}',
      modes,
      [np.stack(of_scene) for of_scene in samples],
    )


if __name__ == '__main__':
  main(*sys.argv[1:])
