"""How the demo page looks and what its controls do; the only room of gradio."""

import html
from pathlib import Path

import gradio as gr

from bitseg_jax.app.page import actions, board, downloads
from bitseg_jax.app.page.marks import Marks, act
from bitseg_jax.app.segmenter import Segmenter

CSS = (
  board.CSS
  + """
/* Results are for taking, yet gradio offers to take them off the page. */
.files button { display: none }
/* No more room than the samples need, and two in a row on phones. */
.samples, .samples .grid-wrap {
  min-height: 0 !important; max-height: none !important; height: auto
}
.examples .grid-container {
  grid-template-columns: repeat(4, minmax(0, 1fr)) !important; gap: 6px
}
/* Whole squares: a fixed height would cut them or leave a gap. */
.examples, .examples .grid-wrap {
  height: auto !important; min-height: 0 !important; overflow: hidden
}
.examples button { min-width: 0; width: 100%; aspect-ratio: 1 }
.working progress {
  display: block; width: 100%; margin-top: 6px
}
.working progress[value] { appearance: none; height: 8px; border: 0 }
.working ::-webkit-progress-bar { background: var(--border-color-primary) }
.working ::-webkit-progress-value { background: var(--color-accent) }
.working ::-moz-progress-bar { background: var(--color-accent) }
/* Gradio prints explanations too pale to read outdoors. */
.settings { --block-info-text-color: var(--body-text-color) }
@media (max-width: 640px) {
  .samples .grid-container { grid-template-columns: 1fr 1fr !important }
  /* All four tabs in sight: gradio would put some into a menu. */
  .results button[role=tab] { padding: 0 6px; font-size: 14px }
  /* Else the page shrinks while a tab is drawn, and jumps to its top. */
  .results { min-height: 100vh }
  .preview img { max-height: 150px; object-fit: contain }
}
"""
)
# On a phone the result is below the button, out of sight.
_SHOW_RESULT = """() => {
  const results = document.querySelector('.results');
  // What went wrong is told beside the button: stay there.
  if (!results.querySelector('.entities')) return;
  if (document.querySelector('.status [role=alert]')) return;
  results.querySelector('[role=tab]').click();
  if (results.getBoundingClientRect().top > window.innerHeight / 2)
    results.scrollIntoView({behavior: 'smooth'});
}"""

_INTRODUCTION = """
# Segment a photo
Each sample is one way to segment the photo. Samples differ where the model is
unsure; together they make the result.
"""
# Few, for each pair of them is compiled, and then kept.
_STEPS = {2, 4, 8, 16, 32}
_GUIDANCE = {0.0, 0.5, 1.0, 2.0, 4.0}
_SETTINGS = 'num_samples', 'closeups', 'num_steps', 'guidance_weight', 'seed'
_DELETE_CACHE = (600, 3600)  # every so many seconds what is so old
# Not 'share', which would send the picture to another machine.
_BUTTONS = ['download', 'fullscreen']
_PRIVATE = {'api_visibility': 'private'}  # a page, not a service
_ONE_AT_A_TIME = {  # two at once would both be slower
  'concurrency_limit': 1,
  'concurrency_id': 'model',
  'show_progress': 'hidden',  # a line says it
}


def build(
  segmenter: Segmenter, checkpoint: str, folder: Path, max_pixels: int
) -> gr.Blocks:
  """Lays out the page and connects it.

  Args:
    segmenter: the model.
    checkpoint: where it is from.
    folder: for the files of results.
    max_pixels: of a photo.

  Returns:
    The page, not launched.
  """
  with gr.Blocks(
    title='bitseg_jax', analytics_enabled=False, delete_cache=_DELETE_CACHE
  ) as blocks:
    gr.Markdown(f'{_INTRODUCTION} Model: {_name(segmenter, checkpoint)}.')
    states = shown, _ = gr.State(None), gr.State(Marks())
    with gr.Row():
      with gr.Column(scale=1, min_width=280):
        chosen = _choice(segmenter, max_pixels)
      with gr.Column(scale=3), gr.Tabs(elem_classes='results'):
        results = *states, *_results(folder, shown)
    answering = _connect_marks(chosen[-2], results, segmenter, checkpoint)
    how = segmenter, checkpoint, max_pixels, answering
    _connect_choice(chosen, results, *how)
  return blocks


def _choice(segmenter, max_pixels):
  """Inputs: what to segment and how, and where it is told how far it is."""
  upload = gr.File(label='Photo, or one of those below', height=150)
  examples = gr.Gallery(
    [str(path) for path in actions.EXAMPLES],
    columns=len(actions.EXAMPLES),
    object_fit='cover',
    allow_preview=False,
    interactive=False,
    elem_classes='examples',
    **_plain([]),
  )
  button = gr.Button('Segment', variant='primary')
  status = gr.HTML(actions.inspect(None, max_pixels)[0], elem_classes='status')
  with gr.Accordion('Settings', open=False, elem_classes='settings'):
    settings = _settings(**segmenter.sampler_settings())
  preview = gr.Image(
    visible=False,
    interactive=False,
    elem_classes='preview',
    **_plain([]),
  )
  return upload, examples, button, status, settings, preview


def _connect_choice(
  chosen, results, segmenter, checkpoint, max_pixels, answering
):
  """Says what happens when a photo is chosen, and when Segment is pressed."""
  upload, examples, button, status, settings, preview = chosen
  shown, marks, picture, *others = results
  nothing = [None] * len(others)

  def check(path):
    message, pixels = actions.inspect(path, max_pixels)
    visible = gr.Image(pixels, visible=pixels is not None)
    return message, visible, None, Marks(), _empty_board(), *nothing

  def run(path, before, marked, *values):
    def work(told):
      return actions.segment(
        segmenter,
        actions.open_photo(path, max_pixels),
        checkpoint,
        dict(zip(_SETTINGS, values, strict=True)),
        marked,
        before,
        told,
      )

    kept = [gr.skip()] * (len(others) + 2)
    try:
      for said in actions.working(work):
        if isinstance(said, str):
          yield said, *kept
        else:
          message = actions.note(actions.summary(said))
          told = _board(said, said=board.HINT, chips=board.chips(marked))
          yield message, said, told, *nothing
    except ValueError as error:
      yield actions.note(str(error), bad=True), *kept

  def choose(event: gr.SelectData):
    return str(actions.EXAMPLES[event.index])

  examples.select(choose, None, upload, **_PRIVATE)
  segmenting = button.click(
    run,
    [upload, shown, marks, *settings],
    [status, shown, picture, *others],
    **_ONE_AT_A_TIME,
    **_PRIVATE,
  )
  segmenting.then(None, js=_SHOW_RESULT, **_PRIVATE)
  # The answer to another photo must not appear in place of the new one's.
  reset = [status, preview, shown, marks, picture, *others]
  late = [segmenting, answering]
  upload.change(check, upload, reset, cancels=late, **_PRIVATE)


def _connect_marks(settings, results, segmenter, checkpoint):
  """Says what happens when one clicks on the picture or a button above it.

  Returns the event in which it is answered.
  """
  shown, marks, picture, *others = results
  nothing = [None] * len(others)

  def mark(before, marked, event: gr.EventData):
    if before is None:
      return marked, gr.skip()
    size = before.photo.pixels.shape[:2]
    marked, wrong = act(marked, event._data, size)
    said = actions.note(wrong, bad=True) if wrong else board.HINT
    return marked, gr.HTML(
      said=said, chips=board.chips(marked), marks=board.marks_html(marked)
    )

  def answer(before, marked, *values):
    kept = [gr.skip()] * (len(others) + 2)
    # Clicks that came while another was answered are answered together.
    if before is None or marked.done == before.marks.done:
      yield kept
      return

    def work(told):
      settings = dict(zip(_SETTINGS, values, strict=True))
      how = checkpoint, settings, marked, before, told
      return actions.segment(segmenter, before.photo, *how)

    try:
      for said in actions.working(work):
        if isinstance(said, str):
          yield gr.skip(), gr.HTML(busy=said), *kept[2:]
        else:
          message = actions.note(actions.summary(said))
          yield said, _board(said, busy=message), *nothing
    except ValueError as error:
      message = actions.note(str(error), bad=True)
      yield gr.skip(), gr.HTML(busy=message), *kept[2:]

  return picture.select(
    mark,
    [shown, marks],
    [marks, picture],
    trigger_mode='multiple',
    show_progress='hidden',
    **_PRIVATE,
  ).then(
    answer,
    [shown, marks, *settings],
    [shown, picture, *others],
    trigger_mode='multiple',
    **_ONE_AT_A_TIME,
    **_PRIVATE,
  )


def _board(shown, **parts):
  """The picture of a segmentation, and what else is to change around it."""
  colors = board.colors(shown.marks, shown.matched, shown.colors)
  return gr.HTML(actions.entities(shown), colors=colors, **parts)


def _empty_board():
  return gr.HTML(actions.note('The segmentation will be here.'), **board.PARTS)


def _name(segmenter, checkpoint):
  """What the model is called: pretrained ones are no step of a run."""
  step = f'step {segmenter.step} of ' * (segmenter.step is not None)
  return step + html.escape(checkpoint)


def _settings(num_steps, guidance_weight, **_):
  """Inputs in the order of _SETTINGS; what the run's config says is chosen."""
  samples = gr.Slider(
    1,
    16,
    4,
    step=1,
    precision=0,
    label='Samples',
    info='More give a better result and show more of what is unsure; each '
    'takes the same time.',
  )
  info = 'Samples of each of five parts of the photo, seen in more detail.'
  closeups = gr.Slider(
    0, 4, 1, step=1, precision=0, label='Close-ups', info=info
  )
  steps = gr.Dropdown(
    sorted({*_STEPS, num_steps}),
    value=num_steps,
    label='Steps',
    info='From noise to a sample. Fewer are faster and coarser. A number not '
    'used before is compiled first.',
  )
  guidance = gr.Dropdown(
    sorted({*_GUIDANCE, guidance_weight}),
    value=guidance_weight,
    label='Guidance',
    info='How closely samples keep to the photo. 0 is off and twice as fast; '
    'much of it makes samples alike.',
  )
  seed = gr.Number(
    0,
    label='Seed',
    precision=0,
    minimum=0,
    maximum=2**31 - 1,
    info='Another number draws other samples, the same one the same.',
  )
  return [samples, closeups, steps, guidance, seed]


def _results(folder, shown):
  """The outputs of a segmentation, in tabs.

  What is in the other tabs than the first is made when they are opened: clicks
  are not to wait for it.
  """
  with gr.Tab('Result'):
    picture = gr.HTML(
      actions.note('The segmentation will be here.'),
      html_template=board.TEMPLATE,
      js_on_load=board.SCRIPT,
      min_height=400,
      apply_default_css=False,
      **board.PARTS,
    )
  with gr.Tab('Samples') as samples_tab:
    samples = gr.Gallery(
      columns=4,
      object_fit='contain',
      height='auto',
      elem_classes='samples',
      **_plain(_BUTTONS),
    )
  with gr.Tab('Uncertainty') as uncertainty_tab:
    uncertainty = gr.Image(interactive=False, **_plain(_BUTTONS))
  with gr.Tab('Files') as files_tab:
    files = gr.File(
      file_count='multiple',
      interactive=False,
      show_label=False,
      elem_classes='files',
    )
  for tab, make, output in (
    (samples_tab, actions.sample_pictures, samples),
    (uncertainty_tab, actions.uncertainty, uncertainty),
    (files_tab, lambda now: downloads.write(now, folder), files),
  ):
    of_shown = lambda now, make=make: None if now is None else make(now)
    tab.select(of_shown, shown, output, **_PRIVATE)
  return [picture, samples, uncertainty, files]


def _plain(buttons):
  return {'show_label': False, 'buttons': buttons}
