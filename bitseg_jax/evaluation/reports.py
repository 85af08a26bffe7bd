"""What evaluation shows people: a gallery, a few lines, a plot."""

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
  for i, samples in scores.samples.items():
    example = pipeline.evaluation_example(
      source[i], parts.image_size, parts.code_size
    )
    height, width = example['size']
    zoom = parts.image_size // parts.code_size
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
  """A few lines for people."""
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


def draw_by_num_samples(
  summary: dict[str, dict], path: str | pathlib.Path
) -> None:
  """Plots ARI, IoU and covering of each answer against N.

  Args:
    summary: as from ensembles.summarize.
    path: of the plot, ending in one of pictures.PLOT_FORMATS.
  """
  names = {'ari': 'ARI', 'iou': 'IoU', 'covering': 'Covering'}
  counts = [int(count) for count in summary]
  figure = pictures.new_figure()
  figure.set_size_inches(9, 3)
  panels = figure.subplots(1, len(names))
  for axes, (name, title) in zip(panels, names.items(), strict=True):
    one = summary['1']['one'][name]
    for i, answer in enumerate(ensembles.ANSWERS[1:]):
      values = [one, *(summary[str(n)][answer][name] for n in counts[1:])]
      oracle = answer == 'oracle'
      label = answer + ' (looks at the truth)' * oracle
      line = 'o--' if oracle else 'o-'
      axes.plot(counts, values, line, label=label, color=f'C{i}')
    axes.set_xscale('log', base=2)
    axes.set_xticks(counts, counts)
    axes.set_xlabel('Samples per image')
    axes.set_ylabel(f'{title} (higher is better)')
    axes.grid(alpha=0.3)
  lines = axes.get_legend_handles_labels()
  figure.legend(*lines, loc='outside lower center', ncols=3, fontsize=8)
  pictures.save_figure(figure, path)
