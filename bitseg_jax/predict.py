"""Segments photos with a trained model.

bitseg predict --input='DIR/*.jpg' --output=DIR [--checkpoint=DIR]

--input may be given several times: photos, folders (with all that is in them),
patterns, or lists of these (.txt). The output keeps their folders. --outputs
chooses among

KINDS

Always written are NAME.json (size, area, box and confidence of the segments)
and summary.json. Photos that are done are passed over when it is started again
with the same settings. The exit code is 1 if a file could not be read.

--known=FOLDER|FILE.json says what is known of photos (pixels of one entity),
--start=FOLDER gives segmentations to begin from, of which --strength says how
much may change; app/known.py describes the files.

Several jobs share the work: each is given --shard=I/N, and the same command
without --shard then writes summary.json and the other files of all photos.
"""

import dataclasses
import textwrap
from pathlib import Path

from absl import flags

from bitseg_jax import cli
from bitseg_jax.app import collection, photos
from bitseg_jax.app import known as user
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.files import DEFAULT, KINDS, LABEL_FORMATS, Outputs
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.runs import weights

__doc__ = (__doc__ or '').replace(
  'KINDS',
  '\n'.join(
    textwrap.fill(
      f'{kind:<13}{meaning}',
      80,
      initial_indent='  ',
      subsequent_indent=' ' * 15,
    )
    for kind, meaning in KINDS.items()
  ),
)


def predict(
  checkpoint: str,
  inputs: list[str],
  outputs: Outputs,
  options: AnswerOptions,
  overwrite: bool = False,
  part: tuple[int, int] | None = None,
  known: str | None = None,
  start: str | None = None,
) -> int:
  """Segments photos; says how it went.

  Args:
    checkpoint: workdir of a run, a step of it, or a pretrained model, see
      weights.read.
    inputs: photos, folders of photos, or glob patterns.
    outputs: which files are written, and where.
    options: how photos are segmented.
    overwrite: segment anew what is there.
    part: (index, count): every count-th photo, from that of the index on, and
      nothing that is of all photos together.
    known, start: folder or JSON file for each, see app/known.py.

  Returns:
    The exit code: 0 when every photo was segmented, else 1.
  """
  found = photos.find(inputs, outputs.folder)
  if (known or start) and options.tile is not None:
    raise ValueError('--known and --start cannot be used with --tile')
  given = {}
  for kind, place in ('known', known), ('start', start):
    if place:
      path, output = Path(place).resolve(), outputs.folder.resolve()
      if output in (path, *path.parents):
        raise ValueError(
          f'--{kind}={place} lies in --output={output}, where it would be '
          'written over; give a copy of it, or another --output'
        )
      given[kind] = user.open_place(place, [photo.name for photo in found])
      number = len(given[kind].of)
      print(f'{kind}: {place} has {number} of {len(found)} photos')
  if part:
    found = found[part[0] :: part[1]]
  summary = collection.predict(
    Segmenter.from_pretrained(checkpoint),
    found,
    outputs,
    options,
    checkpoint,
    overwrite,
    not part,
    given,
  )
  states = [photo['status'] for photo in summary['photos']]
  done, there, failed = map(states.count, ('done', 'there', 'failed'))
  print(
    f'{done} of {len(states)} photos segmented into {outputs.folder}'
    + f' in {summary["seconds"]:.0f} s, compiling included' * bool(done)
    + f'; {there} were there' * bool(there)
    + f'; {failed} could not be read' * bool(failed)
    + '; once all parts are done, the same command without --shard'
    f'{" and --overwrite" * overwrite} writes summary.json' * bool(part)
  )
  if done + there and 'labels' in outputs.kinds:
    seen = [k for k in ('overlay', 'contours', 'sheet') if k in outputs.kinds]
    print(
      'labels look black in a picture viewer, for their pixel values are '
      'segment ids; '
      + (
        f'look at *_{seen[0]}.png instead'
        if seen
        else 'for a picture to look at, add overlay to --outputs'
      )
    )
  return 1 if failed else 0


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string('checkpoint', None, weights.FLAG_HELP)
  flags.DEFINE_multi_string('input', None, 'Photo, folder, pattern or list.')
  flags.DEFINE_string('output', None, 'Directory to write to.')
  flags.DEFINE_list('outputs', ','.join(DEFAULT), f'Some of {",".join(KINDS)}.')
  flags.DEFINE_enum(
    'label_format', 'png', LABEL_FORMATS, 'Of labels: tif has 32 bits.'
  )
  flags.DEFINE_bool('overwrite', False, 'Segment anew what is there.')
  flags.DEFINE_string(
    'known', None, 'What is known of the photos: a folder or a JSON file.'
  )
  flags.DEFINE_string(
    'start', None, 'Segmentations to begin from: a folder of labels.'
  )
  for field in dataclasses.fields(AnswerOptions):
    _define_option(field)
  cli.define_shard()
  flags.mark_flags_as_required(['input', 'output'])


def _define_option(field, values=flags.FLAGS):
  """Defines the flag of a field of AnswerOptions."""
  setting, given = field.metadata['setting'], (field.name, field.default)
  meaning = setting.meaning[0].upper() + setting.meaning[1:] + '.'
  if setting.choices:
    flags.DEFINE_enum(*given, setting.choices, meaning, flag_values=values)
  elif isinstance(setting.default, bool):
    flags.DEFINE_bool(*given, meaning, flag_values=values)
  elif isinstance(setting.default, int):
    flags.DEFINE_integer(*given, meaning, *setting.bounds, flag_values=values)
  else:
    flags.DEFINE_float(*given, meaning, *setting.bounds, flag_values=values)


def main() -> int:
  """Runs `predict` on the flags."""
  f = flags.FLAGS
  names = [field.name for field in dataclasses.fields(AnswerOptions)]
  options = AnswerOptions(**{name: f[name].value for name in names})
  if f['strength'].present and not f.start:
    raise ValueError('--strength says how much of --start may change; give it')
  return predict(
    f.checkpoint or weights.DEFAULT,
    f.input,
    Outputs(Path(f.output), f.outputs, f.label_format),
    options,
    f.overwrite,
    cli.shard(),
    f.known,
    f.start,
  )


if __name__ == '__main__':
  cli.run(define_flags, main)
