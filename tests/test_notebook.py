"""The notebook runs from top to bottom, shortened, and shows its pictures."""

import base64
import io
import pathlib
import re
import shutil

import pytest
from PIL import Image

NOTEBOOK = pathlib.Path('launch/colab_demo.ipynb')
# In place of what the cells say, for a quick run.
SHORT = {'NUM_STEPS': 20, 'NUM_SCENES': 4, 'NUM_TUNING_STEPS': 2}
SHORT |= {'NUM_SAMPLES': 2, 'PHOTO': 'a.jpg'}


@pytest.fixture
def notebook():
  return pytest.importorskip('nbformat').read(NOTEBOOK, as_version=4)


def pictures(notebook):
  """The pictures that a notebook holds, as PIL images."""
  found = [
    output['data']['image/png']
    for cell in notebook.cells
    for output in cell.get('outputs', [])
    if 'image/png' in output.get('data', {})
  ]
  return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def texts(notebook):
  """All that the cells printed, one string for each cell of code."""
  return [
    ''.join(o.get('text', '') for o in cell.outputs)
    for cell in notebook.cells
    if cell.cell_type == 'code'
  ]


def test_the_notebook_is_small_valid_and_shows_a_whole_run(notebook):
  pytest.importorskip('nbformat').validate(notebook)
  assert NOTEBOOK.stat().st_size < 700_000
  cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
  assert len(pictures(notebook)) == 6
  installed, _, predicted, *_, tuned, trained = texts(notebook)
  assert '1 of 1 photos segmented' in predicted
  assert installed.startswith('jax 0.')
  assert re.search(r'ema: ari 0\.\d', trained) and ' s, compiling' in trained
  assert 'starting from photos' in tuned
  assert len((trained + tuned).splitlines()) < 60  # no flood of progress
  assert 'BITSEG' not in NOTEBOOK.read_text()  # nothing is there for tests


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(notebook, tmp_path):
  nbclient = pytest.importorskip('nbclient')
  for name in ('bitseg_jax', 'configs'):
    shutil.copytree(name, tmp_path / name)
  # As phones take them: stored sideways, upright by EXIF.
  photo, exif = Image.new('RGB', (1500, 900), 'red'), Image.Exif()
  exif[0x0112] = 6
  photo.save(tmp_path / 'a.jpg', exif=exif)
  for name, value in SHORT.items():
    line = re.compile(rf'^{name} = [^#\n]*', re.MULTILINE)
    (cell,) = [c for c in notebook.cells if line.search(c.source)]
    cell.source = line.sub(f'{name} = {value!r}  ', cell.source)
  nbclient.NotebookClient(
    notebook, timeout=900, resources={'metadata': {'path': str(tmp_path)}}
  ).execute()
  shown = pictures(notebook)
  assert len(shown) == 6
  width, height = shown[0].size
  assert height == 256 and abs(width - 256 * 900 / 1500) <= 1
  assert (tmp_path / 'runs/notebook_guidance.png').stat().st_size > 1000
