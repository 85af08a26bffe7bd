"""The table of scores that `bitseg score` prints."""

from typing import Any

from bitseg_jax import metrics

# Columns of the tables: names in metrics.SCORES and some other results.
_COLUMNS = (
  *metrics.names('table'),
  *metrics.names('panoptic'),
  'boundary_f',
  'unclaimed',
)
_SET_COLUMNS = (
  'num_samples',
  *metrics.names('ensemble'),
  'ari_oracle',
  'iou_oracle',
  *metrics.names('reliability'),
)
_TITLES = {
  'num_samples': 'samples',
  'ari_oracle': 'oracle ARI',
  'iou_oracle': 'oracle IoU',
}


def format_table(results: dict[str, dict[str, Any]]) -> str:
  """Formats the summaries of methods as text, one line per method.

  If any method has several samples, their scores follow in a second table.
  """
  lines = _format_block(results, ('missing', *_COLUMNS))
  several = {p: r for p, r in results.items() if r['num_samples'] > 1}
  if several:
    lines += ['', *_format_block(several, _SET_COLUMNS)]
    lines.append('oracle: the best sample, chosen by looking at the truth')
  return '\n'.join(lines)


def _format_block(results, columns):
  width = max(len('method'), *map(len, results))
  titles = [_title(name) for name in columns]
  lines = [_format_row(width, 'method', 'images', titles)]
  for place, result in results.items():
    cells = [_format_cell(result.get(name)) for name in columns]
    lines.append(_format_row(width, place, result['num_images'], cells))
  return lines


def _title(name):
  score = metrics.SCORES.get(name)
  return score.title if score else _TITLES.get(name, name)


def _format_row(width, place, images, cells):
  return f'{place:<{width}}{images:>8}' + ''.join(f'{c:>11}' for c in cells)


def _format_cell(value):
  if value is None:
    return '-'
  return f'{value:.3f}' if isinstance(value, float) else str(value)
