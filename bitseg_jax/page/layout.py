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
.samples, .samples .grid-wrap { min-height: 0 !important; height: auto }
@media (max-width: 640px) {
  .samples .grid-container { grid-template-columns: 1fr 1fr !important }
}
"""

_INTRODUCTION = """
# Segment a photo
Samples differ where the model is unsure; together they make the result. The
first run with other steps or guidance compiles them first.
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
        upload = gr.File(label='Photo', height=140)
        settings = _settings(**segmenter.sampler_settings())
        button = gr.Button('Segment', variant='primary', interactive=False)
        status = gr.HTML(actions.inspect(None, max_pixels)[0])
        preview = gr.Image(visible=False, interactive=False, **_plain([]))
      with gr.Column(scale=3), gr.Tabs():
        results = _results()

    def check(path):
      message, picture = actions.inspect(path, max_pixels)
      good = picture is not None
      shown = gr.Image(picture, visible=good)
      return message, shown, gr.Button(interactive=good), *_EMPTY

    def run(path, *values):
      try:
        return actions.segment(
          segmenter,
          actions.read_photo(path, max_pixels),
          Path(path).name,
          folder,
          checkpoint,
          dict(zip(_SETTINGS, values, strict=True)),
        )
      except ValueError as error:
        return actions.note(str(error), bad=True), *_EMPTY

    upload.change(
      check, upload, [status, preview, button, *results], **_PRIVATE
    )
    button.click(
      run,
      [upload, *settings],
      [status, *results],
      show_progress_on=results,
      concurrency_limit=1,  # two at once would both be slower
      **_PRIVATE,
    )
  return blocks


def _name(segmenter, checkpoint):
  """What the model is called: pretrained ones are no step of a run."""
  step = f'step {segmenter.step} of ' * (segmenter.step is not None)
  return step + html.escape(checkpoint)


def _settings(num_steps, guidance_weight, **_):
  """Inputs in the order of _SETTINGS; what the run's config says is chosen."""
  samples = gr.Slider(1, 16, 4, step=1, precision=0, label='Samples')
  with gr.Row():
    steps = gr.Dropdown(
      sorted({*_STEPS, num_steps}),
      value=num_steps,
      label='Steps',
      min_width=80,
    )
    guidance = gr.Dropdown(
      sorted({*_GUIDANCE, guidance_weight}),
      value=guidance_weight,
      label='Guidance',
      min_width=80,
    )
    seed = gr.Number(
      0,
      label='Seed',
      precision=0,
      minimum=0,
      maximum=2**31 - 1,
      min_width=80,
    )
  return [samples, steps, guidance, seed]


def _results():
  """Outputs in the order of actions.Result, without its message."""
  with gr.Tab('Segmentation'):
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
    gr.Markdown('Black: certain. Yellow: unsure.')
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
