"""How the demo page looks and what its controls do; the only room of gradio."""

import html
from pathlib import Path

import gradio as gr

from bitseg_jax.page import actions
from bitseg_jax.segmenting.segmenter import Segmenter

CSS = """
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
# On a phone the result is below the button, out of sight.
_SHOW_RESULT = """() => {
  const results = document.querySelector('.results');
  // What went wrong is told beside the button: stay there.
  if (!results.querySelector('.entities')) return;
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
_SETTINGS = ('num_samples', 'num_steps', 'guidance_weight', 'seed')
_DELETE_CACHE = (600, 3600)  # every so many seconds what is so old
# Not 'share', which would send the picture to another machine.
_BUTTONS = ['download', 'fullscreen']
_PRIVATE = {'api_visibility': 'private'}  # a page, not a service
_EMPTY = actions.note('The segmentation will be here.'), None, None, None


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
    with gr.Row():
      with gr.Column(scale=1, min_width=280):
        chosen = _choice(segmenter, max_pixels)
      with gr.Column(scale=3), gr.Tabs(elem_classes='results'):
        results = _results()

    _connect(chosen, results, segmenter, checkpoint, folder, max_pixels)
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
  status = gr.HTML(actions.inspect(None, max_pixels)[0])
  with gr.Accordion('Settings', open=False, elem_classes='settings'):
    settings = _settings(**segmenter.sampler_settings())
  preview = gr.Image(
    visible=False,
    interactive=False,
    elem_classes='preview',
    **_plain([]),
  )
  return upload, examples, button, status, settings, preview


def _connect(chosen, results, segmenter, checkpoint, folder, max_pixels):
  """Says what happens when something is chosen or pressed."""
  upload, examples, button, status, settings, preview = chosen

  def check(path):
    message, picture = actions.inspect(path, max_pixels)
    return message, gr.Image(picture, visible=picture is not None), *_EMPTY

  def run(path, *values):
    def work(told):
      return actions.segment(
        segmenter,
        actions.read_photo(path, max_pixels),
        Path(path).name,
        folder,
        checkpoint,
        dict(zip(_SETTINGS, values, strict=True)),
        told,
      )

    kept = [gr.skip()] * len(_EMPTY)
    try:
      for said in actions.working(work):
        yield (said, *kept) if isinstance(said, str) else said
    except ValueError as error:
      yield actions.note(str(error), bad=True), *_EMPTY

  def choose(event: gr.SelectData):
    return str(actions.EXAMPLES[event.index])

  examples.select(choose, None, upload, **_PRIVATE)
  upload.change(check, upload, [status, preview, *results], **_PRIVATE)
  button.click(
    run,
    [upload, *settings],
    [status, *results],
    show_progress='hidden',  # the status says it, beside the button
    concurrency_limit=1,  # two at once would both be slower
    **_PRIVATE,
  ).then(None, js=_SHOW_RESULT, **_PRIVATE)


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
  return [samples, steps, guidance, seed]


def _results():
  """Outputs in the order of actions.Result, without its message."""
  with gr.Tab('Result'):
    entities = gr.HTML(_EMPTY[0], min_height=400)
  with gr.Tab('Samples'):
    samples = gr.Gallery(
      columns=4,
      object_fit='contain',
      height='auto',
      elem_classes='samples',
      **_plain(_BUTTONS),
    )
  with gr.Tab('Uncertainty'):
    gr.HTML(actions.color_bar())
    uncertainty = gr.Image(interactive=False, **_plain(_BUTTONS))
  with gr.Tab('Files'):
    files = gr.File(
      file_count='multiple',
      interactive=False,
      show_label=False,
      elem_classes='files',
    )
  return [entities, samples, uncertainty, files]


def _plain(buttons):
  return {'show_label': False, 'buttons': buttons}
