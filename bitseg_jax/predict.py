"""Segments photos with a trained model.

bitseg predict --input='DIR/*.jpg' --output=DIR [--checkpoint=DIR]

--input may be given several times: photos, folders (with all that is in them),
patterns, or lists of these (.txt). The output keeps their folders. Run the same
command to resume. The exit code is 1 if a file could not be read.

--known=FOLDER|FILE.json says what is known of photos (pixels of one entity),
--start=FOLDER|FILE.json gives segmentations to begin from, of which --strength
says how much may change; app/known.py describes the files.

Several jobs share the work: each is given --shard=I/N, and the same command
without --shard (and --overwrite) then writes the files of all photos together.

Always written are NAME.json (size, area, box and confidence of the segments)
and summary.json. --outputs chooses among
"""

import dataclasses
from pathlib import Path

from absl import flags

from bitseg_jax import cli
from bitseg_jax.app import collection, known, photos
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.files import DEFAULT, KINDS, Outputs
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.runs import programs, weights

__doc__ = (__doc__ or '') + '\n'.join(
  f'  {kind}: {meaning}' for kind, meaning in KINDS.items()
)
_OPTIONS = [field.name for field in dataclasses.fields(AnswerOptions)]


def define_flags() -> None:
  """Defines the flags of the command."""
  string = flags.DEFINE_string
  string('checkpoint', weights.DEFAULT, weights.FLAG_HELP)
  places = 'Photo, folder, pattern or list.'
  flags.DEFINE_multi_string('input', None, places, required=True)
  string('output', None, 'Directory to write to.', required=True)
  flags.DEFINE_list('outputs', list(DEFAULT), f'Some of {",".join(KINDS)}.')
  flags.DEFINE_enum('label_format', 'png', ['png', 'tif'], 'tif has 32 bits.')
  flags.DEFINE_bool('overwrite', False, 'Segment anew what is there.')
  string('known', None, 'What is known of photos: a folder or a JSON file.')
  string('start', None, 'Segmentations to begin from: a folder or a JSON file.')
  string('shard', None, 'I/N, such as 0/4: part I of N, counted from 0.')
  cli.define_options(AnswerOptions, _OPTIONS)


def main() -> int:
  """Segments photos and says how it went; 0 if all could be segmented."""
  f = flags.FLAGS
  outputs = Outputs(Path(f.output), f.outputs, f.label_format)
  options = AnswerOptions(**{name: f[name].value for name in _OPTIONS})
  if f['strength'].present and not f.start:
    raise ValueError('--strength says how much of --start may change; give it')
  index, _, count = (f.shard or '0/1').partition('/')
  if not (index.isdecimal() and count.isdecimal()) or int(index) >= int(count):
    raise ValueError(f'--shard={f.shard}: give I/N, such as 0/2 and 1/2')
  found = photos.find(f.input, outputs.folder)
  given, names = {}, [photo.name for photo in found]
  if (f.known or f.start) and f.tile is not None:
    raise ValueError('--known and --start cannot be used with --tile')
  for kind, place in ('known', f.known), ('start', f.start):
    if place:
      given[kind] = known.open_place(place, names, outputs.folder)
      print(f'{kind}: {place} has {len(given[kind].of)} of {len(names)} photos')
  programs.keep_programs()
  segmenter, whole = Segmenter.from_pretrained(f.checkpoint), not f.shard
  mine = found[int(index) :: int(count)]
  summary = collection.predict(
    segmenter, mine, outputs, options, f.checkpoint, f.overwrite, whole, given
  )
  states = [photo['status'] for photo in summary['photos']]
  done, there, failed = map(states.count, ('done', 'there', 'failed'))
  print(
    f'{done} of {len(states)} photos segmented into {f.output}'
    + f' in {summary["seconds"]:.0f} s, compiling included' * bool(done)
    + f'; {there} were there' * bool(there)
    + f'; {failed} could not be read' * bool(failed)
  )
  if done + there and 'labels' in outputs.kinds:
    print('labels look black, for they hold ids; look at the overlay instead')
  return 1 if failed else 0


if __name__ == '__main__':
  cli.run(define_flags, main)
