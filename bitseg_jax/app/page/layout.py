"""How the demo page looks and what its controls do; the only room of gradio."""

import dataclasses
import html
from pathlib import Path

import gradio as gr

from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.page import actions, board
from bitseg_jax.app.page.board import Marks
from bitseg_jax.app.segmenter import Segmenter

CSS = Path(__file__).with_name('page.css').read_text()
_SHOW_RESULT = Path(__file__).with_name('show_result.js').read_text()
_INTRODUCTION = """
# Segment a photo
Each sample is one way to segment the photo. Samples differ where the model is
unsure; together they make the result.
"""
# Options that the page offers: what is chosen at first, None for what the
# model's config says, and few choices, for each is compiled and then kept.
_OFFERED = {
  'num_samples': (4, [1, 2, 4, 8, 16]),
  'closeups': (1, [0, 1, 2, 4]),
  'num_steps': (None, [2, 4, 8, 16, 32]),
  'guidance_weight': (None, [0.0, 0.5, 1.0, 2.0, 4.0]),
  'split_disconnected': (False, []),
  'seed': (0, []),
}
_PROGRESS = gr.Progress()  # gradio gives each call its own
_DELETE_CACHE = (600, 3600)  # every so many seconds what is so old
# Not 'share', which would send the picture to another machine.
_BARE = {'show_label': False, 'interactive': False, 'buttons': []}
_PRIVATE = {'api_visibility': 'private'}  # a page, not a service
# Two at once would both be slower.
_ONE_AT_A_TIME = {'concurrency_limit': 1, 'concurrency_id': 'model', **_PRIVATE}


def build(
  segmenter: Segmenter, checkpoint: str, folder: Path, max_pixels: int
) -> gr.Blocks:
  """Lays out the page and connects it; it is not launched.

  Args:
    segmenter, checkpoint: the model, and where it is from.
    folder: for the files of results.
    max_pixels: of a photo.
  """
  made_with = {
    'checkpoint': checkpoint,
    'step': segmenter.step,
    'digest': segmenter.digest,
  }
  empty = gr.HTML(actions.note('The segmentation will be here.'), **board.PARTS)
  with gr.Blocks(
    title='bitseg_jax', analytics_enabled=False, delete_cache=_DELETE_CACHE
  ) as blocks:
    gr.Markdown(f'{_INTRODUCTION} Model: {html.escape(checkpoint)}.')
    shown, marks = gr.State(None), gr.State(Marks())
    with gr.Row():
      with gr.Column(scale=1, min_width=280):
        upload = gr.File(label='Photo, or one of those below', height=150)
        examples = gr.Gallery(
          [str(path) for path in actions.EXAMPLES],
          columns=len(actions.EXAMPLES),
          object_fit='cover',
          allow_preview=False,
          elem_classes='examples',
          **_BARE,
        )
        button = gr.Button('Segment', variant='primary')
        status = gr.HTML(elem_classes='status')
        with gr.Accordion('Settings', open=False, elem_classes='settings'):
          settings = _settings(segmenter)
        preview = gr.Image(visible=False, elem_classes='preview', **_BARE)
      with gr.Column(scale=3), gr.Tabs(elem_classes='results'):
        with gr.Tab('Result'):
          picture = gr.HTML(
            empty.value,
            html_template=board.TEMPLATE,
            js_on_load=board.SCRIPT,
            min_height=400,
            apply_default_css=False,
            **board.PARTS,
          )
        # What is in the other tabs is made when they are opened: clicks are not
        # to wait for it.
        with gr.Tab('Samples') as samples_tab:
          tools = {**_BARE, 'buttons': ['download', 'fullscreen']}
          sheet = gr.Image(elem_classes='samples', **tools)
        with gr.Tab('Files') as files_tab:
          files = gr.Files(interactive=False, elem_classes='files')
    others, nothing = [sheet, files], [None] * 2

    def check(path):
      """Says at once whether a photo that is chosen can be segmented."""
      message, pixels = actions.note('Choose a photo, or tap one above.'), None
      if path is not None:
        try:
          photo = actions.open_photo(path, max_pixels)
          pixels, (height, width) = photo.pixels, photo.size
          message = actions.note(f'{width}x{height} pixels; press Segment.')
        except ValueError as error:
          message = actions.note(str(error), bad=True)
      seen = gr.Image(pixels, visible=pixels is not None)
      return message, seen, None, Marks(), empty, *nothing

    def work(open_photo, before, marked, values, told=None):
      """The status, what is shown, the picture and the other tabs."""
      try:
        options = AnswerOptions(**dict(zip(_OFFERED, values, strict=True)))
        photo = open_photo()
        now = actions.segment(segmenter, photo, options, marked, before, told)
      except ValueError as error:
        message = actions.note(str(error), bad=True)
        return message, gr.skip(), gr.HTML(told=message), *[gr.skip()] * 2
      message = actions.note(actions.summary(now))
      seen = gr.HTML(
        board.picture(now.overlay, now.result.id_map, now.result.confidence),
        said=board.HINT,
        chips=board.chips(marked),
        told=message,
      )
      return message, now, seen, *nothing

    def run(path, before, marked, told=_PROGRESS, *values):
      told(0, 'starting')
      photo = lambda: actions.open_photo(path, max_pixels)
      count = lambda drawn: told(drawn, unit='samples')
      return work(photo, before, marked, values, count)

    def mark(before, marked, event: gr.EventData):
      if before is None:
        return marked, gr.skip()
      size = before.photo.pixels.shape[:2]
      marked = board.act(marked, event._data, size)
      return marked, gr.HTML(
        chips=board.chips(marked), marks=board.marks_html(marked)
      )

    def answer(before, marked, *values):
      # Clicks that came while another was answered are answered together.
      if before is None or marked.done == before.marks.done:
        return [gr.skip()] * 5
      return work(lambda: before.photo, before, marked, values)

    def choose(event: gr.SelectData):
      return str(actions.EXAMPLES[event.index])

    blocks.load(lambda: check(None)[0], None, status, **_PRIVATE)
    examples.select(choose, None, upload, **_PRIVATE)
    given = [shown, marks, *settings]
    answered = [status, shown, picture, *others]
    silent = {'trigger_mode': 'multiple', 'show_progress': 'hidden'}
    busy = {'show_progress_on': [status], **_ONE_AT_A_TIME}
    segmenting = button.click(run, [upload, *given], answered, **busy)
    segmenting.then(None, js=_SHOW_RESULT, **_PRIVATE)
    marking = picture.select(
      mark, [shown, marks], [marks, picture], **silent, **_PRIVATE
    )
    answering = marking.then(
      answer, given, answered, **silent, **_ONE_AT_A_TIME
    )
    renewed = [status, preview, shown, marks, picture, *others]
    ended = [segmenting, answering]  # of the photo before
    upload.change(check, upload, renewed, cancels=ended, **_PRIVATE)

    def write(now):
      return actions.write_files(now, folder, made_with) if now else nothing

    for tab in samples_tab, files_tab:
      tab.select(write, shown, others, **_PRIVATE)
  return blocks


def _settings(segmenter):
  sampler, controls = segmenter.sampler_options()._asdict(), []
  fields = {field.name: field for field in dataclasses.fields(AnswerOptions)}
  for name, (value, choices) in _OFFERED.items():
    setting = fields[name].metadata['setting']
    value = sampler[name] if value is None else value
    label = name.removeprefix('num_').replace('_', ' ').capitalize()
    about = {'value': value, 'label': label, 'info': setting.meaning}
    if choices:
      control = gr.Dropdown(sorted({*choices, value}), **about)
    elif isinstance(value, bool):
      control = gr.Checkbox(**about)
    else:
      least, most = setting.bounds
      control = gr.Number(precision=0, minimum=least, maximum=most, **about)
    controls.append(control)
  return controls
