"""Many photos: files written, stopping and going on, and what is bad."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from absl import flags
from absl.testing import flagsaver
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bitseg_jax import metrics, predict
from bitseg_jax.app import files
from bitseg_jax.app.answer import AnswerOptions, Segmentation
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data import rle
from bitseg_jax.data.families import coco
from bitseg_jax.data.labels import read_label as read_labels
from bitseg_jax.evaluation import pictures, reading
from bitseg_jax.runs import weights
from tests import calling

ALL = list(files.KINDS)
IN_ALL = 'summary.json', 'panoptic.json', 'rle.json', 'coco.json'


@pytest.fixture(scope='module')
def model(random_run):
  return Segmenter.from_checkpoint(random_run)


@pytest.fixture(autouse=True)
def one_model(monkeypatch, model):
  """All tests share what is compiled; one asks for a wrong checkpoint."""
  load = Segmenter.from_pretrained
  monkeypatch.setattr(
    Segmenter,
    'from_pretrained',
    lambda path: load(path) if path == 'nowhere' else model,
  )


@pytest.fixture
def folder(tmp_path, draw_photo):
  """Three photos, one in a folder of its own."""
  inputs = tmp_path / 'in'
  (inputs / 'deep').mkdir(parents=True)
  for i, name in enumerate(['a.png', 'b.jpg', 'deep/a.png']):
    Image.fromarray(draw_photo(i, 30 + i, 47)).save(inputs / name)
  return inputs


def call(checkpoint, inputs, output, kinds=(), **settings):
  """The exit code of the command."""
  return calling.call(
    predict,
    checkpoint=checkpoint,
    input=list(inputs),
    output=output,
    outputs=','.join(kinds) or None,
    **{'num_samples': 2, 'seed': 5, **settings},
  )


def run(inputs, output, *args, **settings):
  return call('run', [inputs], output, *args, **settings)


def files_of(name, num_samples=2):
  """All files of one photo, beside those of all photos."""
  kinds = 'labels', 'overlay', 'contours', 'uncertainty', 'sheet'
  return [
    *(f'{name}_{kind}.png' for kind in kinds),
    *(f'{name}_sample_{n + 1}.png' for n in range(num_samples)),
    *(f'{name}.json', f'{name}.geojson'),
    *(f'panoptic/{name}.png', f'labelme/{name}.json'),
  ]


def test_parts_are_joined_byte_for_byte(folder, tmp_path, capsys):
  kinds = ['labels', 'overlay', 'uncertainty', 'panoptic', 'rle', 'sheet']
  assert run(folder, tmp_path / 'whole', kinds) == 0
  for index in (1, 0):
    run(folder, tmp_path / 'parts', kinds, shard=f'{index}/2')
    assert not (tmp_path / 'parts/summary.json').exists()
  capsys.readouterr()
  assert run(folder, tmp_path / 'parts', kinds) == 0
  assert '0 of 3 photos' in capsys.readouterr().out
  whole, parts = (
    {
      path.relative_to(tmp_path / name): path.read_bytes()
      for path in (tmp_path / name).rglob('*')
      if path.is_file() and path.name != 'summary.json'  # it has times
    }
    for name in ('whole', 'parts')
  )
  assert len(whole) > 12
  assert parts == whole


def read_summary(output):
  return json.loads((output / 'summary.json').read_text())


def names_in(output):
  found = (path for path in output.rglob('*') if path.is_file())
  return sorted(path.relative_to(output).as_posix() for path in found)


def test_everything_that_can_be_written(folder, model, tmp_path):
  output = tmp_path / 'out'
  assert run(folder, output, ALL) == 0
  names = ['a', 'b', 'deep/a']
  expected = [*IN_ALL]
  for name in names:
    expected += files_of(name)
  assert names_in(output) == sorted(expected)
  for name, path in zip(names, ['a.png', 'b.jpg', 'deep/a.png'], strict=True):
    image = Image.open(folder / path)
    result = model.segment(image, num_samples=2, seed=5)
    labels = Image.open(output / f'{name}_labels.png')
    assert labels.mode == 'I;16'
    np.testing.assert_array_equal(np.asarray(labels), result.id_map + 1)
    for n in range(2):
      sample = np.asarray(Image.open(output / f'{name}_sample_{n + 1}.png'))
      np.testing.assert_array_equal(sample, result.samples[n] + 1)
    for kind in ('overlay', 'contours'):
      picture = Image.open(output / f'{name}_{kind}.png')
      assert (picture.mode, picture.size) == ('RGB', image.size)
    # Above its colour bar, where the photo is in the others.
    picture = np.asarray(Image.open(output / f'{name}_uncertainty.png'))
    assert picture.shape[0] > image.height
    assert picture.shape[1] >= image.width
    segments = files.read_record(output, name)['segments']
    assert [s['id'] for s in segments] == list(range(1, len(segments) + 1))
    np.testing.assert_allclose(
      [s['confidence'] for s in segments], result.confidence, atol=1e-4
    )


def test_coco_files_agree_with_the_labels(folder, tmp_path):
  output = tmp_path / 'out'
  run(folder / 'a.png', output, ['labels', 'panoptic', 'rle', 'geojson'])
  labels = np.asarray(Image.open(output / 'a_labels.png')).astype(int)
  Image.open(folder / 'a.png').save(output / 'panoptic' / 'a_photo.png')

  panoptic = json.loads((output / 'panoptic.json').read_text())
  (image,) = panoptic['images']
  assert (image['width'], image['height']) == labels.shape[::-1]
  assert image['file_name'] == 'a.png'
  (annotation,) = panoptic['annotations']
  assert annotation['image_id'] == image['id']
  png = np.asarray(Image.open(output / 'panoptic' / annotation['file_name']))
  np.testing.assert_array_equal(png @ [1, 256, 65536], labels)
  (category,) = panoptic['categories']
  assert category['isthing'] == 1
  ids = [info['id'] for info in annotation['segments_info']]
  np.testing.assert_array_equal(ids, np.unique(labels))

  lengths = json.loads((output / 'rle.json').read_text())
  assert lengths['images'] == panoptic['images']
  for segment, info in zip(
    lengths['annotations'], annotation['segments_info'], strict=True
  ):
    y, x = np.nonzero(labels == info['id'])
    left, top, width, height = info['bbox']
    assert (left, top) == (x.min(), y.min())
    assert (left + width, top + height) == (x.max() + 1, y.max() + 1)
    assert info['area'] == segment['area'] == len(y)
    assert info['bbox'] == segment['bbox']
    inside = rle.decode(segment['segmentation'], *labels.shape)
    assert set(inside) == set(x * labels.shape[0] + y)
    assert 0 < segment['score'] <= 1
    assert segment['category_id'] == info['category_id'] == category['id']

  polygons = json.loads((output / 'a.geojson').read_text())
  assert [feature['properties'] for feature in polygons['features']] == [
    {'id': info['id'], 'area': info['area'], 'score': segment['score']}
    for info, segment in zip(
      annotation['segments_info'], lengths['annotations'], strict=True
    )
  ]

  # What this package reads is what it wrote.
  (output / 'images').mkdir()
  Image.open(folder / 'a.png').save(output / 'images' / 'a.png')
  source = coco.open_panoptic(output)
  assert not source.problems
  ((item,),) = [items for items in source.splits.values() if items]
  np.testing.assert_array_equal(source.load_id_maps(item)[0], labels)


@pytest.mark.parametrize('kind', ['rle', 'coco'])
def test_pycocotools_finds_the_labels(folder, tmp_path, kind):
  """In run lengths and in polygons, pixel by pixel."""
  output = tmp_path / 'out'
  run(folder, output, ['labels', kind])
  truth = COCO(output / f'{kind}.json')
  assert len(truth.imgs) == 3
  for number, image in truth.imgs.items():
    stem = Path(image['file_name']).with_suffix('')
    labels = np.asarray(Image.open(output / f'{stem}_labels.png'))
    drawn = np.zeros_like(labels)
    annotations = truth.loadAnns(truth.getAnnIds(number))
    for k, annotation in enumerate(annotations, 1):
      encoded = truth.annToRLE(annotation)
      assert annotation['area'] == coco_mask.area(encoded)
      assert annotation['bbox'] == coco_mask.toBbox(encoded).tolist()
      inside = coco_mask.decode(encoded)
      np.testing.assert_array_equal(inside, labels == k)
      drawn += k * inside
    np.testing.assert_array_equal(drawn, labels)
  # As detections they score; against themselves as well as can be.
  found = [
    {**a, 'segmentation': truth.annToRLE(a)}
    for a in truth.dataset['annotations']
  ]
  evaluation = COCOeval(truth, truth.loadRes(found))
  for step in 'evaluate', 'accumulate', 'summarize':
    getattr(evaluation, step)()
  assert evaluation.stats[0] == pytest.approx(1)


def test_labelme_and_shapely_find_the_labels(folder, tmp_path):
  output = tmp_path / 'out'
  run(folder, output, ['labels', 'labelme', 'geojson'])
  for name, photo in (('b', 'b.jpg'), ('deep/a', 'deep/a.png')):
    ids = np.asarray(Image.open(output / f'{name}_labels.png')).astype(int)
    areas = np.bincount(ids.ravel())[1:]
    path = output / 'labelme' / f'{name}.json'
    assert (path.parent / json.loads(path.read_text())['imagePath']).samefile(
      folder / photo
    )
    np.testing.assert_array_equal(read_labels(path), ids)
    features = json.loads((output / f'{name}.geojson').read_text())['features']
    shapes = [shapely.geometry.shape(f['geometry']) for f in features]
    assert all(shape.is_valid for shape in shapes)
    np.testing.assert_array_equal([shape.area for shape in shapes], areas)
    assert [f['properties']['id'] for f in features] == list(
      range(1, len(areas) + 1)
    )


def test_labels_may_have_32_bits(folder, model, tmp_path):
  output, kinds = tmp_path / 'out', ['labels', 'samples']
  run(folder / 'b.jpg', output, kinds)
  before = read_labels(output / 'b_labels.png')
  run(folder / 'b.jpg', output, kinds, label_format='tif')
  assert names_in(output) == [
    *('b.json', 'b_labels.tif', 'b_sample_1.tif', 'b_sample_2.tif'),
    'summary.json',
  ]
  labels = tifffile.imread(output / 'b_labels.tif')
  assert labels.dtype == np.uint32
  np.testing.assert_array_equal(labels, before)
  np.testing.assert_array_equal(read_labels(output / 'b_labels.tif'), labels)


def test_more_ids_than_16_bits_hold(tmp_path):
  id_map = np.arange(70_000, dtype=np.int32).reshape(250, 280)
  about = {'photo': 'a.png', 'made_with': {}}
  result = Segmentation(
    id_map,
    np.zeros(id_map.shape, np.float32),
    np.ones(70_000, np.float32),
    1,
    lambda n: id_map,
  )
  outputs = files.Outputs(tmp_path, ['labels', 'panoptic'])
  photo = np.zeros((*id_map.shape, 3), np.uint8)
  files.write(outputs, 'a', photo, result, about)
  assert not (tmp_path / 'a_labels.png').exists()
  for path in ('a_labels.tif', 'panoptic/a.png'):
    np.testing.assert_array_equal(read_labels(tmp_path / path), id_map + 1)


def test_what_is_there_is_not_done_again(folder, tmp_path, monkeypatch, capsys):
  output = tmp_path / 'out'
  done = []
  write = files.write
  noted = lambda *a: done.append(a[1]) or write(*a)
  monkeypatch.setattr(files, 'write', noted)

  def again(*args, **settings):
    done.clear()
    assert run(folder, output, *args, **settings) == 0
    return sorted(done)  # two are worked on at once

  names = ['a', 'b', 'deep/a']
  assert again() == names
  before = {name: (output / name).read_bytes() for name in names_in(output)}
  assert again() == []
  assert '3 were there' in capsys.readouterr().out
  assert [p['status'] for p in read_summary(output)['photos']] == ['there'] * 3
  assert again(['labels']) == []
  (output / 'b_overlay.png').unlink()
  assert again() == ['b']
  (output / 'a.json').write_text('{')
  assert again() == ['a']
  for name in sorted(before.keys() - {'summary.json', 'a.json', 'b.json'}):
    assert (output / name).read_bytes() == before[name]
  assert again(overwrite=True) == names
  assert again(seed=6) == names
  assert again(min_area=0.1, seed=6) == names
  Image.new('RGB', (20, 30)).save(folder / 'b.jpg')
  assert again(min_area=0.1, seed=6) == ['b']
  assert again(['rle'], min_area=0.1, seed=6) == names
  assert again(['rle'], min_area=0.1, seed=6) == []


def test_nothing_of_another_run_is_left(folder, tmp_path):
  """Or a score of samples would be of two runs."""
  output = tmp_path / 'out'
  run(folder, output, ALL, num_samples=3)
  run(folder, output, ['labels', 'samples'], seed=6)
  expected = ['summary.json']
  for name in ('a', 'b', 'deep/a'):
    expected += [f'{name}.json', f'{name}_labels.png']
    expected += [f'{name}_sample_1.png', f'{name}_sample_2.png']
  assert sorted(names_in(output)) == sorted(expected)
  run(folder, output, ['overlay', 'rle'], seed=6)  # the same run, more files
  assert (output / 'a_labels.png').exists()
  run(folder, output, ['overlay'], seed=6)
  assert (output / 'rle.json').exists()
  before = (output / 'a_labels.png').read_bytes()
  Image.new('L', (3, 3)).save(output / 'a_labels.png')
  run(folder, output, ['contours'], seed=6)  # all are of one segmentation
  assert (output / 'a_labels.png').read_bytes() == before
  (folder / 'a.png').write_bytes(b'')  # now it has no files of any run
  run(folder, output, ['labels'], seed=7)
  assert not list(output.glob('a*'))


def test_only_the_files_of_what_is_redone_go(tmp_path, draw_photo):
  inputs, output = tmp_path / 'in', tmp_path / 'out'
  inputs.mkdir()
  for i, name in enumerate(['a', 'a_a']):
    Image.fromarray(draw_photo(i, 30, 47)).save(inputs / f'{name}.png')
  run(inputs, output, ['labels', 'rle'])
  run(inputs / 'a.png', output, ['labels'], seed=6)
  assert not (output / 'rle.json').exists()  # it tells of a as it was
  assert (output / 'a_a_labels.png').is_file()


def test_what_cannot_be_reached_for_a_while_keeps_its_files(folder, tmp_path):
  inputs, output = tmp_path / 'links', tmp_path / 'out'
  inputs.mkdir()
  (inputs / 'a.png').symlink_to(folder / 'a.png')
  assert run(inputs, output) == 0
  before = names_in(output)
  (folder / 'a.png').rename(folder / 'moved.png')
  assert run(inputs, output) == 1
  assert names_in(output) == before


def test_samples_of_a_run_that_was_killed_do_not_stay(folder, tmp_path):
  output = tmp_path / 'out'
  run(folder, output, ['labels', 'samples'], num_samples=4)
  (output / 'a.json').unlink()  # it is written last
  run(folder, output, ['labels', 'samples'])
  kept = sorted(path.name for path in output.glob('a_sample_*'))
  assert kept == ['a_sample_1.png', 'a_sample_2.png']


def test_a_run_that_is_trained_anew_is_another_model(
  folder, tmp_path, monkeypatch, model
):
  output = tmp_path / 'out'
  assert run(folder, output) == 0
  assert read_summary(output)['made_with']['digest'] == model.digest
  monkeypatch.setattr(model, 'digest', 'of other weights')
  assert run(folder, output) == 0
  assert [p['status'] for p in read_summary(output)['photos']] == ['done'] * 3


def test_coco_files_name_photos_as_they_are_called(tmp_path, draw_photo):
  for i, name in enumerate(['x.jpg', 'x.jpg.jpg']):
    Image.fromarray(draw_photo(i, 30, 47)).save(tmp_path / name)
  run(tmp_path, tmp_path / 'out', ['rle'])
  images = json.loads((tmp_path / 'out/rle.json').read_text())['images']
  assert [image['file_name'] for image in images] == ['x.jpg', 'x.jpg.jpg']


def test_photos_of_one_name_stay_apart_in_coco_files(tmp_path, draw_photo):
  output = tmp_path / 'out'
  inputs = [tmp_path / 'x' / 'a.png', tmp_path / 'y' / 'a.png']
  for i, path in enumerate(inputs):
    path.parent.mkdir()
    Image.fromarray(draw_photo(i, 30, 47)).save(path)
  call('run', inputs, output, ['rle', 'labels'])
  images = json.loads((output / 'rle.json').read_text())['images']
  for image, name in zip(images, ['a.png', 'a.png~2'], strict=True):
    stem = str(Path(image['file_name']).with_suffix(''))
    (parts,) = reading.find(output / 'rle.json', [stem]).values()
    (painted,) = reading.load(parts, (30, 47))
    labels = np.asarray(Image.open(output / f'{name}_labels.png')).astype(int)
    assert metrics.adjusted_rand_index(labels, painted) == 1


@pytest.mark.parametrize('content', ['[]', '{"shapes": []}'])
def test_a_file_of_somebody_else_stays(folder, tmp_path, capsys, content):
  output = tmp_path / 'out'
  output.mkdir()
  (output / 'a.json').write_text(content)
  (output / 'a_sample_1.png').write_text('of somebody else')
  assert run(folder, output) == 1
  assert 'a.json was not written by predict' in capsys.readouterr().err
  assert (output / 'a.json').read_text() == content
  assert (output / 'a_sample_1.png').read_text() == 'of somebody else'
  states = [p['status'] for p in read_summary(output)['photos']]
  assert states == ['failed', 'done', 'done']


def test_a_folder_with_the_name_of_the_model_is_not_meant(
  folder, tmp_path, monkeypatch
):
  name = weights.DEFAULT
  (tmp_path / name).mkdir()
  made = []
  for place in (tmp_path, folder):
    monkeypatch.chdir(place)
    assert call(name, [folder], tmp_path / 'out') == 0
    made.append(read_summary(tmp_path / 'out'))
  assert made[0]['made_with']['checkpoint'] == name
  assert [p['status'] for p in made[1]['photos']] == ['there'] * 3


def test_photos_are_steered_by_files(folder, tmp_path, capsys):
  output, known = tmp_path / 'out', tmp_path / 'known'
  known.mkdir()
  marks = np.zeros((31, 47), np.uint8)
  marks[3, 4], marks[20, 40], marks[28, 9] = 1, 2, 1
  Image.fromarray(marks).save(known / 'b.png')
  assert run(folder, tmp_path / 'plain') == 0
  settings = {'known': str(known), 'start': str(tmp_path / 'plain')}
  assert run(folder, output, **settings) == 0
  steered = np.asarray(Image.open(output / 'b_labels.png'))
  assert steered[3, 4] == steered[28, 9] != steered[20, 40]
  capsys.readouterr()
  assert run(folder, output, **settings) == 0
  assert '3 were there' in capsys.readouterr().out
  marks[28, 9] = 2
  Image.fromarray(marks).save(known / 'b.png')
  assert run(folder, output, **settings) == 0
  assert '2 were there' in capsys.readouterr().out
  Image.fromarray(marks[1:]).save(known / 'b.png')
  assert run(folder, output, **settings) == 1
  assert 'b.png is 47 x 30 pixels' in capsys.readouterr().err


def test_bad_files_are_named_and_the_others_done(folder, tmp_path, capsys):
  (folder / 'broken.jpg').write_bytes((folder / 'b.jpg').read_bytes()[:400])
  (folder / 'empty.png').touch()
  output = tmp_path / 'out'
  assert run(folder, output) == 1
  out, err = capsys.readouterr()
  assert out.startswith('3 of 5 photos segmented into')
  assert '2 could not be read' in out
  skipped = sorted(line for line in err.splitlines() if 'skipped: ' in line)
  assert len(skipped) == 2
  assert 'broken.jpg: unreadable' in skipped[0]
  assert 'empty.png: empty file' in skipped[1]
  summary = read_summary(output)
  by_photo = {photo['photo']: photo for photo in summary['photos']}
  assert len(by_photo) == 5
  assert 'empty file' in by_photo[str(folder / 'empty.png')]['reason']
  good = by_photo[str(folder / 'deep' / 'a.png')]
  assert good['seconds'] > 0
  assert summary['made_with']['step'] == 2
  assert summary['made_with']['num_steps'] == 2  # of the run's config


def test_a_full_disk_loses_nothing_that_is_done(
  folder, tmp_path, monkeypatch, capsys
):
  output, kinds = tmp_path / 'out', ['labels', 'overlay', 'panoptic']
  save, calls = pictures.save_png, []

  def save_until_full(picture, path):
    calls.append(path)
    if len(calls) >= 7:  # within the last photo
      raise OSError(28, 'No space left on device')
    save(picture, path)

  monkeypatch.setattr(pictures, 'save_png', save_until_full)
  assert run(folder, output, kinds) == 1
  assert 'No space left on device' in capsys.readouterr().err
  monkeypatch.setattr(pictures, 'save_png', save)
  done = [name for name in names_in(output) if name.endswith('.json')]
  assert run(folder, output, kinds) == 0
  states = [photo['status'] for photo in read_summary(output)['photos']]
  assert states.count('there') == len(done)
  assert states.count('done') == 3 - len(done)
  assert not [name for name in names_in(output) if name.endswith('partly')]


def test_any_name_of_a_file_will_do(tmp_path, draw_photo, capsys):
  inputs, output = tmp_path / 'in', tmp_path / 'out'
  inputs.mkdir()
  names = ['two\nlines', 'no text \udcff\udcfe', 'ünï 日本', ' spaces ', '%d']
  for name in names:
    Image.fromarray(draw_photo(0, 9, 12)).save(inputs / f'{name}.png')
  assert run(inputs, output, ALL) == 0, capsys.readouterr().err
  for name in names:
    assert Image.open(output / f'{name}_labels.png').size == (12, 9)
  assert len(json.loads((output / 'coco.json').read_text())['images']) == 5


def test_large_photos_get_small_pictures(model, tmp_path, draw_photo):
  photo = draw_photo(0, 20, 1100)
  outputs, result = files.Outputs(tmp_path, ALL), model.segment(photo)
  files.write(outputs, 'a', photo, result, {'photo': 'a'})
  for kind in ('overlay', 'contours'):
    picture = Image.open(tmp_path / f'a_{kind}.png')
    assert picture.size == (files.LONGEST_SIDE, 19)
  bar = Image.open(tmp_path / 'a_uncertainty.png')
  assert bar.width == files.LONGEST_SIDE
  assert Image.open(tmp_path / 'a_labels.png').size == (1100, 20)


def test_one_is_told_that_labels_look_black(folder, tmp_path, capsys):
  for kind in 'labels', 'overlay':
    assert run(folder / 'a.png', tmp_path / kind, [kind]) == 0
    assert ('look black' in capsys.readouterr().out) == (kind == 'labels')


def test_refused_before_it_starts(tmp_path, capsys):
  def refuse(checkpoint, *args, **settings):
    inputs = [tmp_path / 'a.jpg']
    assert call(checkpoint, inputs, tmp_path / 'out', *args, **settings) == 1
    out, err = capsys.readouterr()
    assert out == ''
    assert err.count('\n') == 1
    assert not (tmp_path / 'out').exists()
    return err

  assert 'no photo there' in refuse('run')
  Image.new('RGB', (4, 4)).save(tmp_path / 'a.jpg')
  assert 'nowhere' in refuse('nowhere')
  assert "has 'masks'; choose from labels," in refuse('run', ['masks'])


@pytest.mark.parametrize('kind', ['known', 'start'])
def test_what_is_given_is_not_written_over(folder, tmp_path, capsys, kind):
  output = tmp_path / 'out'
  assert run(folder, output) == 0
  before = (output / 'a_labels.png').read_bytes()
  for place in (output, output / 'deep'):
    assert run(folder, output, **{kind: str(place)}) == 1
    assert 'it would be written over' in capsys.readouterr().err
  assert (output / 'a_labels.png').read_bytes() == before


@pytest.mark.parametrize(
  ('setting', 'value'),
  [
    ('guidance_weight', 1e30),
    ('guidance_weight', float('nan')),
    ('seed', 2**32),
    ('seed', -1),
    ('num_samples', 10**9),
    ('num_steps', 0),
  ],
)
def test_settings_out_of_range_are_refused(model, setting, value, draw_photo):
  with pytest.raises(ValueError, match=f'{setting} is '):
    model.segment(draw_photo(0, 16, 16), **{setting: value})


def test_every_option_is_a_flag_and_stands_in_the_record(folder, tmp_path):
  with flagsaver.flagsaver():
    predict.define_flags()
    for field in dataclasses.fields(AnswerOptions):
      flag = flags.FLAGS[field.name]
      assert flag.default == field.default
      assert field.metadata['setting'].meaning[1:] in flag.help
      assert field.metadata['setting'].allowed in flag.help
  assert run(folder, tmp_path / 'out', ['labels'], closeups=1) == 0
  made_with = read_summary(tmp_path / 'out')['made_with']
  assert {f.name for f in dataclasses.fields(AnswerOptions)} <= made_with.keys()
  assert made_with['closeups'] == 1


@pytest.mark.parametrize(
  ('name', 'value'),
  [('num_samples', 0), ('num_steps', 0), ('seed', True), ('exif', 'best')],
)
def test_options_say_what_they_may_be(name, value):
  with pytest.raises(ValueError, match=f'{name} is .*; it must be'):
    AnswerOptions(**{name: value})
