"""The notebook runs from top to bottom, shortened, and shows its pictures."""

import base64
import io
import pathlib
import shutil

import pytest
from PIL import Image

NOTEBOOK = pathlib.Path('launch/colab_demo.ipynb')


def test_the_notebook_carries_no_outputs_and_is_valid():
  nbformat = pytest.importorskip('nbformat')
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  nbformat.validate(notebook)
  assert not any(cell.get('outputs') for cell in notebook.cells)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
  nbclient = pytest.importorskip('nbclient')
  nbformat = pytest.importorskip('nbformat')
  for name in ('bitseg_jax', 'configs'):
    shutil.copytree(name, tmp_path / name)
  monkeypatch.setenv('BITSEG_SHORT', '1')
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  # As phones take them: stored sideways, upright by EXIF.
  photo, exif = Image.new('RGB', (1500, 900), 'red'), Image.Exif()
  exif[0x0112] = 6
  photo.save(tmp_path / 'photo.jpg', exif=exif)
  (cell,) = [cell for cell in notebook.cells if "PHOTO = ''" in cell.source]
  cell.source = cell.source.replace("PHOTO = ''", "PHOTO = 'photo.jpg'")
  client = nbclient.NotebookClient(
    notebook, timeout=900, resources={'metadata': {'path': str(tmp_path)}}
  )
  client.execute()
  pictures = [
    output
    for cell in notebook.cells
    for output in cell.get('outputs', [])
    if 'image/png' in output.get('data', {})
  ]
  assert len(pictures) == 4
  shown = base64.b64decode(pictures[1]['data']['image/png'])
  width, height = Image.open(io.BytesIO(shown)).size
  assert height == 256 and abs(width - 256 * 900 / 1500) <= 1
  assert (tmp_path / 'runs/notebook_guidance.png').stat().st_size > 1000
