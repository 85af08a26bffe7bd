"""Scores predictions that any method left on disk, on a prepared dataset.

bitseg score --data=DIR --split=val --predictions=DIR \\
  [--predictions=DIR ...] [--output=FILE.json]

Files are found by the names of the images:

  labels   NAME_labels.png (as bitseg_jax.predict writes) or NAME.png: 8 or 16
           bits, 0 = no segment; or NAME.npy: integers [H, W], -1 = no segment.
           Several samples: NAME_0.png, NAME_1.png, ...; a folder NAME/; or .npy
           [N, H, W]
  samples  NAME_sample_1.png, ...: those that predict writes beside its labels
  masks    NAME.json: [{"segmentation": COCO run lengths, "score": number},...],
           which may overlap (SAM's "predicted_iou" counts as score); or
           --predictions=FILE.json with one such list of all images, each with
           its "image_id" or "file_name"

Without --format, labels are used, or masks if there are none.

Several jobs share the work: each is given --shard=I/N, and the same command
without --shard joins their scores.
"""

from pathlib import Path

from absl import flags

from bitseg_jax import cli
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import others, reading, score_parts, score_table
from bitseg_jax.runs.log import write_json

_PHOTO_SIDE = 8  # photos are not used, so they are decoded as small as possible
_ASKED = 'format', 'unclaimed', 'order', 'image_size', 'allow_missing'


def define_flags() -> None:
  """Defines the flags of `bitseg score`."""
  flags.DEFINE_string('data', None, 'Directory of the prepared dataset.')
  flags.DEFINE_string('split', None, 'Split to score: train, val or test.')
  place = 'Directory or JSON file; repeat it for several methods.'
  flags.DEFINE_multi_string('predictions', None, place)
  enum = flags.DEFINE_enum
  enum('format', 'any', list(reading.FORMATS), 'Kind of files, see above.')
  pixels = 'Whether pixels in no segment form one more segment or are left out.'
  enum('unclaimed', 'segment', ['segment', 'ignore'], pixels)
  top = 'Mask on top: with the highest score, or with the smallest area.'
  enum('order', 'score', list(reading.ORDERS), top)
  side = 'Longest side to compare at, in pixels; 0 is that of the annotation.'
  flags.DEFINE_integer('image_size', 0, side, lower_bound=0)
  without = 'Count an image without prediction as one region.'
  flags.DEFINE_bool('allow_missing', False, without)
  flags.DEFINE_string('output', '', 'JSON file to write as well.')
  cli.define_shard()
  flags.mark_flags_as_required(['data', 'split', 'predictions'])


def main() -> None:
  """Scores the predictions, prints the table and writes the JSON."""
  f = flags.FLAGS
  cli.check_output(f.output, 'methods')
  part, output = cli.shard(), Path(f.output)
  if part and not f.output:
    raise ValueError('--shard needs --output, where the parts are joined')
  source = splits.open_split(f.data, f.split, _PHOTO_SIDE)
  names = [source[i]['name'] for i in range(len(source))]
  asked = {name: getattr(f, name) for name in ('data', 'split', *_ASKED)}
  # Another dataset in the same place is scored anew.
  rests_on = {**asked, 'prepared': score_parts.dataset_stamp(f.data)}
  found = others.find_methods(
    names, dict.fromkeys(f.predictions), f.format, f.allow_missing
  )
  how = f.unclaimed, f.order, f.image_size
  if part:
    return _score_part(source, found, how, output, part, rests_on)
  known = (
    score_parts.read(output, rests_on, score_parts.stamps(found))
    if f.output
    else None
  )
  scores = others.score_methods(source, found, *how, known=known)
  results = {place: others.summarize(s) for place, s in scores.items()}
  size = f'{f.image_size} px' if f.image_size else 'size of the annotation'
  print(f'{f.data} {f.split}, {size}, unclaimed pixels: {f.unclaimed}')
  print(score_table.format_table(results))
  if f.output:
    write_json(output, {**asked, 'methods': results})
    for path in score_parts.paths(output):
      if score_parts.holds(path, rests_on):
        path.unlink()
      else:
        print(f'{path} is of other settings and was not used')
  for place, result in results.items():
    if not result['num_images']:
      raise ValueError(
        f'{place}: nothing to score, for it claims no pixel that somebody '
        'labelled'
      )


def _score_part(source, found, how, output, part, asked):
  index, count = part
  indices = range(len(source))[index::count]
  scores = others.score_methods(source, found, *how, indices)
  path = score_parts.write(
    output, part, asked, scores, score_parts.stamps(found)
  )
  print(
    f'part {index} of {count}: {len(indices)} images, scores in {path}; once '
    'all parts are done, the same command without --shard joins them'
  )


if __name__ == '__main__':
  cli.run(define_flags, main)
