"""Plots: the formats are what their names say."""

import pytest

from bitseg_jax.evaluation import plots

BEGINS = {'png': b'\x89PNG', 'pdf': b'%PDF', 'svg': b'<?xml'}


def draw(path):
  figure = plots.new_figure()
  axes = figure.subplots()
  axes.plot([1, 2], [3, 4], label='a line')
  axes.set_title('A title')
  plots.save(figure, path)


@pytest.mark.parametrize('kind', plots.FORMATS)
def test_a_file_has_the_format_of_its_name(tmp_path, kind):
  draw(tmp_path / f'a.{kind}')
  (file,) = tmp_path.iterdir()
  assert file.read_bytes().startswith(BEGINS[kind])


def test_vector_files_hold_lines_and_text_but_no_pixels(tmp_path):
  draw(tmp_path / 'a.svg')
  svg = (tmp_path / 'a.svg').read_text()
  assert '<image' not in svg and 'A title</text>' in svg
  draw(tmp_path / 'a.pdf')
  assert b'/Subtype /Image' not in (tmp_path / 'a.pdf').read_bytes()


def test_another_format_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'a\.jpg: plots are .* png, pdf, svg'):
    draw(tmp_path / 'a.jpg')
  assert not list(tmp_path.iterdir())
