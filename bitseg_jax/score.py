"""Scores predictions that any method left on disk, on a prepared dataset.

bitseg score --data=DIR --split=val --predictions=DIR \\
  [--predictions=DIR ...] [--output=FILE.json]

Files are found by the names of the images:

  labels   NAME.png, .tif or .npy, or such a NAME_labels (as bitseg predict
           writes), NAME_masks, ...: 8 to 32 bits, 0 = no segment; in .npy
           integers [H, W], -1 = no segment. Several samples: NAME_0.png,
           NAME_1.png, ...; or .npy [N, H, W]
  samples  NAME_sample_1.png, ...: those that predict writes beside its labels
  masks    NAME.json of labelme, or [{"segmentation": run lengths or polygons of
           COCO, "score": number}, ...], which may overlap (SAM's
           "predicted_iou" counts as score); or --predictions=FILE.json in
           COCO's results or instances format

Without --format, labels are used, or masks if there are none.
"""

from pathlib import Path

from absl import flags

from bitseg_jax import cli
from bitseg_jax.data.prepared import splits
from bitseg_jax.evaluation import others, reading
from bitseg_jax.runs.log import write_json

_PHOTO_SIDE = 8  # photos are not used, so they are decoded as small as possible
_HOW = 'allow_missing', 'image_size', 'unclaimed', 'order', 'ignore'


def define_flags() -> None:
  """Defines the flags of `bitseg score`."""
  enum = flags.DEFINE_enum
  cli.define_split()
  place = 'Directory or JSON file; repeat it for several methods.'
  flags.DEFINE_multi_string('predictions', None, place, required=True)
  enum('format', 'any', list(reading.FORMATS), 'Kind of files, see above.')
  pixels = 'Whether pixels in no segment form one more segment or are left out.'
  enum('unclaimed', 'segment', ['segment', 'ignore'], pixels)
  top = 'Mask on top: with the highest score, or with the smallest area.'
  enum('order', 'score', list(reading.ORDERS), top)
  side = 'Longest side to compare at, in pixels; 0 is that of the annotation.'
  flags.DEFINE_integer('image_size', 0, side, lower_bound=0)
  void = 'Id in the predictions that means no segment, such as 255.'
  flags.DEFINE_multi_integer('ignore', [], void)
  without = 'Count an image without prediction as one region.'
  flags.DEFINE_bool('allow_missing', False, without)
  flags.DEFINE_string('output', '', 'JSON file to write as well.')


def main() -> None:
  """Scores the predictions, prints the table and writes the JSON."""
  f = flags.FLAGS
  cli.check_output(f.output, 'methods')
  source = splits.open_split(f.data, f.split, _PHOTO_SIDE)
  how = {name: getattr(f, name) for name in _HOW}
  scores = others.score_methods(source, f.predictions, f.format, **how)
  results = {place: others.summarize(s) for place, s in scores.items()}
  size = f'{f.image_size} px' if f.image_size else 'size of the annotation'
  print(f'{f.data} {f.split}, {size}, unclaimed pixels: {f.unclaimed}')
  print(others.format_table(results))
  if f.output:
    asked = {'data': f.data, 'split': f.split, 'format': f.format, **how}
    write_json(Path(f.output), {**asked, 'methods': results})
  for place, result in results.items():
    if not result['num_images']:
      raise ValueError(f'{place}: nothing to score, no labelled pixel claimed')


if __name__ == '__main__':
  cli.run(define_flags, main)
