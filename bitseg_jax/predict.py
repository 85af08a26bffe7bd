"""Segments photos with a trained model.

bitseg predict --input='DIR/*.jpg' --output=DIR [--checkpoint=DIR]

--input may be given several times: photos, folders (with all that is in them),
or patterns. The output keeps their folders. --outputs chooses among

  labels       16-bit PNG at the photo's size: segment id + 1
  overlay      the segments in colour over the photo
  contours     their borders alone over the photo
  uncertainty  where samples disagree; of one sample, where it is unsure
  samples      all samples: labels of each, and a picture of ten side by side
  panoptic     COCO panoptic: panoptic.json and panoptic/
  rle          COCO instances with run lengths and confidence: rle.json
  geojson      the segments as polygons, for QuPath and programs for maps
  sheet        all overlays on pages: sheet_1.png, ...

Always written are NAME.json (size, area, box and confidence of the segments)
and summary.json. Photos that are done are passed over when it is started again
with the same settings. The exit code is 1 if a file could not be read.

--known=FOLDER|FILE.json says what is known of photos (pixels of one entity),
--start=FOLDER gives segmentations to begin from, of which --strength says how
much may change; app/known_files.py describes the files.

Several jobs share the work: each is given --shard=I/N, and the same command
without --shard then writes summary.json and the other files of all photos.
"""

from pathlib import Path

from absl import flags

from bitseg_jax import cli
from bitseg_jax.app import collection, known_files, photos, records, views
from bitseg_jax.app.answer import METHODS
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.configs import base
from bitseg_jax.runs import weights


def predict(
  checkpoint: str,
  inputs: list[str],
  output: str,
  kinds: list[str] | None = None,
  overwrite: bool = False,
  part: tuple[int, int] | None = None,
  known: str | None = None,
  start: str | None = None,
  **settings,
) -> int:
  """Segments photos; says how it went.

  Args:
    checkpoint: workdir of a run, a step of it, or a pretrained model, see
      weights.read.
    inputs: photos, folders of photos, or glob patterns.
    output: directory to write to.
    kinds: some of records.KINDS; None for labels, overlay and, of several
      samples, uncertainty.
    overwrite: segment anew what is there.
    part: (index, count): every count-th photo, from that of the index on, and
      nothing that is of all photos together.
    known, start: folder or JSON file for each, see known_files.py.
    **settings: of Segmenter.segment_batch, see collection.DEFAULTS.

  Returns:
    The exit code: 0 when every photo was segmented, else 1.
  """
  settings = {**collection.DEFAULTS, **settings}
  if kinds is None:
    kinds = records.default_kinds(settings['num_samples'])
  records.check_kinds(kinds)
  found = photos.find(inputs, output)
  steering = _open_steering(known, start, output, settings)
  for kind, place in steering.items():
    number = known_files.count(place, [photo.name for photo in found])
    print(f'{kind}: {place.place} has {number} of {len(found)} photos')
  if part:
    found = found[part[0] :: part[1]]
  segmenter = Segmenter.load(checkpoint)
  how = kinds, settings, checkpoint, overwrite, not part, steering
  summary = collection.predict(segmenter, found, output, *how)
  states = [photo['status'] for photo in summary['photos']]
  done, there, failed = map(states.count, ('done', 'there', 'failed'))
  print(
    f'{done} of {len(states)} photos segmented into {output}'
    + f' in {summary["seconds"]:.0f} s, compiling included' * bool(done)
    + f'; {there} were there' * bool(there)
    + f'; {failed} could not be read' * bool(failed)
    + '; once all parts are done, the same command without --shard'
    f'{" and --overwrite" * overwrite} writes summary.json' * bool(part)
  )
  if done + there and (line := collection.how_to_look(kinds)):
    print(line)
  return 1 if failed else 0


def _open_steering(known, start, output, settings):
  """What files say of the photos, by kind."""
  places = (('known', known), ('start', start))
  steering = {k: known_files.open_place(place) for k, place in places if place}
  if steering and settings['tile'] is not None:
    raise ValueError('--known and --start cannot be used with --tile')
  if settings['steer'] and not known:
    raise ValueError('--steer lets samples agree with --known; give it')
  for kind, (place, _) in steering.items():
    if Path(output).resolve() in (place.resolve(), *place.resolve().parents):
      raise ValueError(
        f'--{kind}={place} lies in --output={output}, where it would be '
        'written over; give a copy of it, or another --output'
      )
  return steering


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string('checkpoint', None, weights.FLAG_HELP)
  flags.DEFINE_multi_string('input', None, 'Photo, folder of them, or pattern.')
  flags.DEFINE_string('output', None, 'Directory to write to.')
  flags.DEFINE_list('outputs', None, ','.join(records.KINDS))
  flags.DEFINE_bool('overwrite', False, 'Segment anew what is there.')
  integer, bounds = flags.DEFINE_integer, base.EVAL['num_samples'].bounds
  integer('num_samples', 1, 'Samples of each photo.', *bounds)
  integer('seed', 0, 'Seed of the samples.', *base.SETTINGS['seed'].bounds)
  bounds = base.SAMPLE['num_steps'].bounds
  integer('num_steps', None, 'Steps of the sampler.', *bounds)
  bounds = base.SAMPLE['guidance_weight'].bounds
  guidance = 'Guidance of the sampler; 0 is off.'
  flags.DEFINE_float('guidance_weight', None, guidance, *bounds)
  flags.DEFINE_enum(
    'method', METHODS[0], METHODS, 'How samples become one result.'
  )
  integer('tile', None, 'Side of tiles for large photos, pixels.', 1, 65535)
  flags.DEFINE_bool('follow_edges', True, "Let borders follow the photo's.")
  flags.DEFINE_bool(
    'color_votes', True, 'Let cuts by colour alone vote beside the samples.'
  )
  bounds = views.CLOSEUPS.bounds
  integer('closeups', 0, 'Samples of each of five close-ups.', *bounds)
  flags.DEFINE_float(
    'min_area',
    0.0,
    'Smaller shares of a photo are joined.',
    *views.MIN_AREA.bounds,
  )
  flags.DEFINE_string('known', None, 'What is known: folder or JSON file.')
  flags.DEFINE_bool('steer', False, 'Let samples agree with --known, too.')
  flags.DEFINE_string('start', None, 'Segmentations to begin from: folder.')
  flags.DEFINE_float('strength', 0.5, 'How much of --start may change.', 0, 1)
  cli.define_shard()
  flags.mark_flags_as_required(['input', 'output'])


def main() -> int:
  """Runs `predict` on the flags."""
  f = flags.FLAGS
  settings = {name: f[name].value for name in collection.DEFAULTS}
  if f['strength'].present and not f.start:
    raise ValueError('--strength says how much of --start may change; give it')
  return predict(
    weights.given_or_default(f.checkpoint),
    f.input,
    f.output,
    f.outputs,
    f.overwrite,
    cli.shard(),
    f.known,
    f.start,
    **settings,
  )


if __name__ == '__main__':
  cli.run(define_flags, main)
