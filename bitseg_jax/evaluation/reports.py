"""What evaluation shows people: a gallery, and a few lines."""

import pathlib
from collections.abc import Sequence
from typing import Any

from bitseg_jax.data import pipeline
from bitseg_jax.evaluation import ensembles, pictures
from bitseg_jax.runs import build


def draw_gallery(
  source: Sequence[dict[str, Any]],
  scores: Any,
  parts: build.Experiment,
  path: str | pathlib.Path,
) -> None:
  """Writes a PNG: photo, ground truth, samples in the truth's colours.

  Args:
    source: records.
    scores: of its images, with samples of some, see evaluate.Scores.
    parts: of the run.
    path: of the PNG.
  """
  rows = []
  zoom = parts.image_size // parts.code_size
  for i, samples in scores.samples.items():
    example = pipeline.evaluation_example(
      source[i], parts.image_size, parts.code_size
    )
    height, width = example['size']
    photo = example['image'][: zoom * height, : zoom * width]
    truth = example['id_maps'][0][:height, :width]
    colors = pictures.entity_colors(truth)
    count = len(example['id_maps'])
    caption = f'1 of {count} annotators' if count > 1 else ''
    row = [
      (photo, example['name']),
      (pictures.colorize(truth, colors), caption),
    ]
    for n, sample in enumerate(samples[:4]):
      matched = pictures.match_ids(truth, sample[:height, :width])
      caption = f'ARI {scores.ari[i, n]:.2f}  IoU {scores.iou[i, n]:.2f}'
      row.append((pictures.colorize(matched, colors), caption))
    rows.append(row)
  if rows:
    titles = [f'sample {n + 1}' for n in range(len(rows[0]) - 2)]
    pictures.gallery(rows, path, ['photo', 'ground truth', *titles])


def format_results(results: dict[str, Any]) -> str:
  """A few lines for people, of what evaluate.evaluate returns."""
  lines = []
  for dataset, found in results.get('datasets', {'': results}).items():
    lines.append(
      f'{dataset + ", " if dataset else ""}step {results["step"]}, '
      f'{found["num_images"]} images, '
      f'{results["num_samples"]} samples per image'
    )
    for name in filter(found.get, ('ema', 'raw')):
      numbers = ', '.join(
        f'{key} {v:.4f}' for key, v in found[name].items() if v is not None
      )
      lines.append(f'  {name}: {numbers}')
    if 'by_num_samples' in found:
      lines += ['', ensembles.format_table(found['by_num_samples']), '']
  return '\n'.join(lines)
