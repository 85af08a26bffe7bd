"""The demo page: its logic, and the page itself in a browser."""

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bitseg_jax.app.page
from bitseg_jax import demo
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.page import actions, board
from bitseg_jax.app.page.board import Marks
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data import rle
from bitseg_jax.data.outside import SourceError
from tests import calling

OPTIONS = AnswerOptions(num_samples=3, num_steps=2, guidance_weight=1.0)
MADE_WITH = {'checkpoint': 'some/run'}


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


@pytest.fixture(scope='module')
def shown(model, draw_photo):
  """What the page shows of a photo."""
  photo = actions.Upload('my <photo>.jpg', draw_photo(0, 30, 47), (30, 47))
  return actions.segment(model, photo, OPTIONS, Marks())


def test_a_bad_file_is_named_without_its_folder(tmp_path):
  path = tmp_path / 'bad.jpg'
  path.write_text('no photo')
  with pytest.raises(SourceError, match=r'^bad\.jpg: unreadable image'):
    actions.open_photo(path, 1000)
  with pytest.raises(SourceError, match='No photo is chosen yet'):
    actions.open_photo(None, 1000)


def test_too_many_pixels_are_refused_before_they_are_decoded(
  tmp_path, draw_photo
):
  path = tmp_path / 'large.png'
  Image.fromarray(draw_photo(0, 40, 50)).save(path)
  photo = actions.open_photo(path, 2000)
  np.testing.assert_array_equal(photo.pixels, draw_photo(0, 40, 50))
  path.write_bytes(path.read_bytes()[:60])  # the size, and no pixels
  with pytest.raises(
    SourceError, match=r'large\.png: 0.002 megapixels .* shrink it'
  ):
    actions.open_photo(path, 1999)


def test_a_large_photo_is_worked_on_as_a_smaller_copy(tmp_path, draw_photo):
  path = tmp_path / 'wide.png'
  Image.fromarray(draw_photo(0, 20, 2000)).save(path)
  photo = actions.open_photo(path, 10**7)
  assert max(photo.pixels.shape) == 1024
  assert photo.name == 'wide.png' and photo.size == (20, 2000)


def test_what_can_be_downloaded(shown, tmp_path):
  sheet, written = actions.write_files(shown, tmp_path, MADE_WITH)
  assert sheet in written
  *files, archive = map(Path, written)
  stem, files = 'my <photo>', {file.name: file for file in files}
  labels, polygons, record = (
    f'{stem}{end}' for end in ('_labels.png', '.geojson', '.json')
  )
  assert set(files) == {
    *(labels, polygons, record, 'coco.json', f'{stem}_overlay.png'),
    *(f'{stem}_uncertainty.png', f'{stem}_sheet.png'),
  }
  with zipfile.ZipFile(archive) as packed:
    assert set(packed.namelist()) == set(files)
    assert packed.read(labels) == files[labels].read_bytes()
  labels = np.asarray(Image.open(files[labels]))
  np.testing.assert_array_equal(labels, shown.result.id_map + 1)
  areas = np.bincount(labels.ravel())[1:].tolist()
  polygons = json.loads(files[polygons].read_text())['features']
  assert [f['properties']['area'] for f in polygons] == areas
  coco = json.loads(files['coco.json'].read_text())
  assert [a['area'] for a in coco['annotations']] == areas
  assert coco['images'][0]['file_name'] == shown.photo.name
  record = json.loads(files[record].read_text())
  assert [segment['area'] for segment in record['segments']] == areas
  assert record['made_with'] == {**MADE_WITH, **dataclasses.asdict(OPTIONS)}


def test_a_photo_may_be_called_as_a_file_of_all_photos(shown, tmp_path):
  shown = shown._replace(photo=shown.photo._replace(name='coco.jpg'))
  _, written = actions.write_files(shown, tmp_path, MADE_WITH)
  named = {Path(path).name: Path(path) for path in written}
  assert 'segments' in json.loads(named['coco~2.json'].read_text())
  assert 'annotations' in json.loads(named['coco.json'].read_text())


def entities(shown):
  result = shown.result
  return board.picture(shown.overlay, result.id_map, result.confidence)


def test_every_entity_has_its_pixels_and_says_its_share(shown):
  labels = shown.result.id_map + 1
  groups = re.findall(
    r'data-says="Entity (\d+): ([\d.]+)%[^"]*" d="([^"]*)"', entities(shown)
  )
  drawn = np.zeros_like(labels)
  for number, share, path in groups:
    inside = np.zeros(labels.shape[::-1], bool)
    for ring in re.findall('M([^z]*)z', path):
      corners = list(map(int, re.split('[L ]', ring)))
      inside.ravel()[rle.decode([corners], *labels.shape)] ^= True
    drawn += int(number) * inside.T
    expected = 100 * (labels == int(number)).mean()
    assert float(share) == pytest.approx(expected, abs=0.06)
  np.testing.assert_array_equal(drawn, labels)


def test_names_from_outside_are_no_html(shown):
  said = actions.note(actions.summary(shown))
  assert 'my &lt;photo&gt;.jpg' in said
  assert '<photo>' not in said + entities(shown)


def test_every_sample_is_told(random_run, draw_photo):
  told = []
  photos = [draw_photo(0, 20, 30), draw_photo(1, 30, 20)]
  model = Segmenter.from_checkpoint(random_run, batch_size=4)
  model.segment_batch(photos, num_samples=3, num_steps=2, progress=told.append)
  # Of two photos, and of five close-ups of each.
  assert told == sorted(told) and told[-1] == (6 + 2 * 5 * 2,) * 2


def test_what_is_told_changes_no_result(model, draw_photo):
  photo = draw_photo(0, 20, 30)
  told = model.segment(photo, 2, progress=lambda how_far: None)
  np.testing.assert_array_equal(told.samples, model.segment(photo, 2).samples)


def test_examples_are_small_photos_that_can_be_segmented():
  assert len(actions.EXAMPLES) == 4
  for path in actions.EXAMPLES:
    assert path.stat().st_size < 25_000
    assert actions.open_photo(path, 10**6).name == path.name


def test_old_results_are_deleted(shown, tmp_path, monkeypatch):
  monkeypatch.setattr(actions, '_KEPT_RESULTS', 2)
  for _ in range(4):
    _, paths = actions.write_files(shown, tmp_path, MADE_WITH)
    assert all(Path(file).is_file() for file in paths)
  assert len(list(tmp_path.iterdir())) == 2


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'gradio', None)
  monkeypatch.delitem(sys.modules, 'bitseg_jax.app.page.layout', raising=False)
  monkeypatch.delattr(bitseg_jax.app.page, 'layout', raising=False)
  assert calling.call(demo) == 1
  assert 'pip install' in capsys.readouterr().err


def test_a_taken_port_is_said_before_the_model_is_loaded(capsys):
  pytest.importorskip('gradio')
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    assert calling.call(demo, checkpoint='/nowhere', port=port) == 1
  said = capsys.readouterr().err
  assert f'127.0.0.1:{port}: cannot listen' in said and '--port' in said


def needs_browser():
  # Where there should be one, its absence is no excuse.
  lack = pytest.fail if os.environ.get('BITSEG_BROWSER') else pytest.skip
  for library in ('gradio', 'selenium'):
    if importlib.util.find_spec(library) is None:
      lack(f'{library} is not installed')
  programs = [
    shutil.which('chromium') or shutil.which('google-chrome'),
    shutil.which('chromedriver'),
  ]
  if None in programs:
    lack('there is no chromium with chromedriver')
  return programs


@pytest.fixture(scope='module')
def address(random_run, tmp_path_factory):
  """Where the page is, once it is ready; started outside of the package."""
  needs_browser()
  with socket.create_server(('127.0.0.1', 0)) as free:
    port = free.getsockname()[1]
  args = [f'--checkpoint={random_run}', f'--port={port}']
  args += ['--max_pixels=10000', '--max_upload_mb=1']
  process = subprocess.Popen(
    [sys.executable, '-m', 'bitseg_jax.demo', *args],
    stdout=subprocess.PIPE,
    text=True,
    cwd=tmp_path_factory.mktemp('elsewhere'),
    env={**os.environ, 'PYTHONPATH': os.getcwd()},
  )
  try:
    lines = list(
      itertools.takewhile(lambda x: 'ready' not in x, process.stdout)
    )
    assert process.poll() is None, lines
    yield f'http://127.0.0.1:{port}'
  finally:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


@pytest.fixture
def browser(tmp_path):
  """Chromium that downloads to tmp_path."""
  chromium, driver = needs_browser()
  from selenium import webdriver

  options = webdriver.ChromeOptions()
  options.binary_location = chromium
  with tempfile.TemporaryDirectory() as profile:
    for flag in (
      'headless no-sandbox disable-gpu disable-quic no-first-run '
      'disable-background-networking disable-component-update disable-sync '
      f'window-size=1280,900 user-data-dir={profile}'
    ).split():
      options.add_argument(f'--{flag}')
    options.add_experimental_option(
      'prefs', {'download.default_directory': str(tmp_path)}
    )
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
    service = webdriver.ChromeService(driver)
    with webdriver.Chrome(options=options, service=service) as opened:
      yield opened


def until(condition, seconds=60):
  """What condition returns as soon as it is true."""
  from selenium.common import exceptions

  # The page draws itself anew while one reads it or clicks.
  passing = (
    StopIteration,
    exceptions.StaleElementReferenceException,
    exceptions.ElementNotInteractableException,
    exceptions.ElementClickInterceptedException,
  )
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    with contextlib.suppress(*passing):
      if value := condition():
        return value
    time.sleep(0.2)
  raise AssertionError('waited in vain')


def urls_asked_for(browser):
  """All that the page asked for, of any machine."""
  events = [
    json.loads(entry['message'])['message']
    for entry in browser.get_log('performance')
  ]
  return {
    event['params']['request']['url']
    for event in events
    if event['method'] == 'Network.requestWillBeSent'
  }


# As a mouse does, at shares of the picture's width and height.
_CLICK = """
const picture = document.querySelector('.entities image');
const box = picture.getBoundingClientRect();
for (const name of ['pointerdown', 'pointerup'])
  picture.dispatchEvent(new PointerEvent(name, {
    bubbles: true, pointerType: 'mouse', button: 0,
    clientX: box.left + arguments[0] * box.width,
    clientY: box.top + arguments[1] * box.height}));
"""


def page_of(browser):
  """What a person does on the page, and what they read there."""
  find = lambda css: browser.find_elements('css selector', css)
  # As often as it takes: what is found may be drawn anew before the click.
  press = lambda find_one: until(lambda: find_one().click() or True)
  return types.SimpleNamespace(
    find=find,
    press=press,
    status=lambda: ' '.join(one.text for one in find('[role=status]')),
    alert=lambda: ' '.join(one.text for one in find('[role=alert]')),
    upload=lambda path: until(lambda: find('input[type=file]'))[0].send_keys(
      str(path)
    ),
    clear=lambda: press(lambda: next(iter(find('button[aria-label=Clear]')))),
    segment=lambda: press(
      lambda: next(b for b in find('button') if b.text == 'Segment')
    ),
    click_at=lambda x, y: browser.execute_script(_CLICK, x, y),
    act=lambda name: press(lambda: find(f'[data-act="{name}"]')[0]),
    as_phone=lambda: browser.execute_cdp_cmd(
      'Emulation.setDeviceMetricsOverride',
      {'width': 390, 'height': 844, 'deviceScaleFactor': 1, 'mobile': True},
    ),
    as_desktop=lambda: browser.execute_cdp_cmd(
      'Emulation.clearDeviceMetricsOverride', {}
    ),
  )


@pytest.mark.slow
def test_the_page_says_what_it_cannot_take(
  address, browser, tmp_path, draw_photo
):
  page = page_of(browser)
  bad, large, heavy = (
    tmp_path / name for name in ('bad.jpg', 'large.png', 'heavy.jpg')
  )
  bad.write_text('no photo')
  Image.fromarray(draw_photo(0, 200, 300)).save(large)
  heavy.write_bytes(bytes(2**21))

  page.as_phone()
  browser.get(address)
  until(lambda: 'Choose a photo' in page.status())
  page.segment()
  until(lambda: 'No photo is chosen yet' in page.alert())
  time.sleep(1)  # it would scroll to where the result is not
  assert browser.execute_script('return window.scrollY') == 0
  page.as_desktop()
  for path, reason in ((bad, 'bad.jpg: unreadable'), (large, 'megapixels')):
    page.upload(path)
    until(lambda reason=reason: reason in page.alert())
    page.clear()
    until(lambda: 'Choose a photo' in page.status())
  page.upload(heavy)
  until(lambda: 'maximum allowed size' in browser.page_source)


@pytest.mark.slow
def test_the_page_in_a_browser(address, browser, tmp_path, draw_photo):
  page, photo = page_of(browser), tmp_path / 'photo.png'
  Image.fromarray(draw_photo(0, 60, 90)).save(photo)

  # An example is chosen by a tap, and while it works one sees it.
  page.as_desktop()
  browser.get(address)
  until(lambda: len(page.find('.examples img')) == 4)
  page.press(lambda: page.find('.examples img')[0])
  until(lambda: 'astronaut.jpg' in browser.page_source)
  until(lambda: 'megapixels' in page.alert())  # this test's page takes fewer

  browser.refresh()
  page.upload(photo)
  until(lambda: '90x60 pixels' in page.status())
  page.segment()
  until(lambda: re.search(r'photo\.png: \d+ entit', page.status()))
  assert until(lambda: page.find('svg.entities path.entity'))
  # On a phone every tab and what it shows are in view once it is tapped.
  page.as_phone()
  results = "document.querySelector('.results')"
  wide = 'return document.documentElement.scrollWidth'
  assert browser.execute_script(wide) <= 390  # nothing is cut off
  caption = page.find('.caption')[0].rect
  assert caption['x'] >= 0 and caption['x'] + caption['width'] <= 390
  top = f'return {results}.getBoundingClientRect().top'
  browser.execute_script(f'{results}.scrollIntoView()')
  for tab in 'Samples', 'Files':
    page.press(
      lambda tab=tab: next(t for t in page.find('[role=tab]') if t.text == tab)
    )
    time.sleep(0.5)  # it would jump while the tab is drawn
    assert abs(browser.execute_script(top)) < 844 / 4
    if tab == 'Samples':
      until(lambda: page.find('.samples img'))
  page.press(lambda: next(iter(page.find('.files a[download="photo.zip"]'))))
  archive = tmp_path / 'photo.zip'
  until(archive.is_file)
  with zipfile.ZipFile(archive) as packed:
    assert 'photo_labels.png' in packed.namelist()

  asked = urls_asked_for(browser)
  here = address, 'data:', 'blob:', 'chrome'
  assert asked and all(url.startswith(here) for url in asked)


def test_clicks_in_a_browser(address, browser, tmp_path, draw_photo):
  page, photo = page_of(browser), tmp_path / 'photo.png'
  Image.fromarray(draw_photo(0, 60, 90)).save(photo)
  page.as_desktop()
  browser.get(address)
  page.upload(photo)
  until(lambda: '90x60 pixels' in page.status())
  page.segment()
  until(lambda: page.find('.entities .entity'))
  letters = lambda: [mark.text for mark in page.find('.mark')]
  answered = lambda count: until(
    # Beside the button, too.
    lambda: f'true to {count} mark' in page.find('.status')[0].text
  )

  # Two clicks on one entity, a third on another.
  page.click_at(0.2, 0.3)
  until(lambda: letters() == ['A'])
  page.click_at(0.8, 0.7)
  until(lambda: letters() == ['A', 'A'])
  page.act('new')
  until(lambda: page.find('[data-act=new][aria-pressed=true]'))
  page.click_at(0.5, 0.5)
  until(lambda: letters() == ['A', 'A', 'B'])
  answered(3)
  page.act('undo')
  until(lambda: letters() == ['A', 'A'])
  answered(2)

  page.press(
    lambda: next(t for t in page.find('[role=tab]') if t.text == 'Files')
  )
  page.press(lambda: next(iter(page.find('.files a[download="photo.zip"]'))))
  archive = tmp_path / 'photo.zip'
  until(archive.is_file)
  with zipfile.ZipFile(archive) as packed:
    names = 'labels.png', 'marks.json'
    assert {f'photo_{name}' for name in names} < set(packed.namelist())
    assert 'photo.geojson' in packed.namelist()
    labels = np.asarray(Image.open(packed.open('photo_labels.png')))
  assert labels[18, 18] == labels[42, 72]
