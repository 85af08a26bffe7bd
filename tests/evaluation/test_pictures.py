"""Pictures: what colours, matching, overlays, galleries and plots promise."""

import numpy as np
import pytest
from PIL import Image
from skimage import color

from bitseg_jax import metrics
from bitseg_jax.evaluation import pictures


def regions(seed, count=30, shape=(40, 50)):
  """Nearest of random centres: many touching regions."""
  rng = np.random.default_rng(seed)
  centres = rng.random((count, 2)) * shape
  pixels = np.stack(np.indices(shape), axis=-1)[..., None, :]
  return ((pixels - centres) ** 2).sum(axis=-1).argmin(axis=-1).astype('i4')


def noise(seed, ids, shape=(40, 50)):
  return np.random.default_rng(seed).integers(ids, size=shape, dtype='i4')


def with_hole(id_map):
  holed = id_map.copy()
  holed[5:15, 10:30] = -1
  return holed


def cells_on_background():
  """400 single pixels that all touch one background and nothing else."""
  id_map = np.zeros((41, 41), np.int32)
  id_map[1::2, 1::2] = np.arange(1, 401).reshape(20, 20)
  return id_map


MAPS = {
  'regions': regions(0),
  'hole': with_hole(regions(1)),
  'many regions': regions(2, count=300),
  'noise, every pair touches': noise(3, 64, (80, 80)),
  'cells': cells_on_background(),
  'large ids': regions(4) * 1_000_003,
  'one entity': np.zeros((4, 5), np.int32),
  'all ignored': np.full((4, 5), -1, np.int32),
}
each_map = pytest.mark.parametrize('id_map', MAPS.values(), ids=MAPS.keys())


def touching_pairs(id_map):
  """Pairs of values at pixels that touch, corners included, the slow way."""
  height, width = id_map.shape
  pairs = set()
  for y in range(height):
    for x in range(width):
      for dy, dx in (0, 1), (1, 0), (1, 1), (1, -1):
        if y + dy < height and 0 <= x + dx < width:
          pairs.add((int(id_map[y, x]), int(id_map[y + dy, x + dx])))
  return {(a, b) for a, b in pairs if a != b and a >= 0 and b >= 0}


def nearest_neighbours(id_map, colors):
  """The least CIEDE2000 distance of the colours of two that touch."""
  pairs = np.array(sorted(touching_pairs(id_map)))
  lab = {k: color.rgb2lab(np.array(c) / 255) for k, c in colors.items()}
  sides = (np.stack([lab[int(k)] for k in side]) for side in pairs.T)
  return color.deltaE_ciede2000(*sides).min()


@each_map
def test_neighbours_differ_in_colour(id_map):
  colors = pictures.entity_colors(id_map)
  assert set(colors) == set(np.unique(id_map).tolist()) - {-1}
  for a, b in touching_pairs(id_map):
    assert colors[a] != colors[b]


@pytest.mark.parametrize('seed', range(5))
def test_neighbours_differ_in_colour_in_a_sample_too(seed):
  truth = regions(seed, count=100)
  sample = pictures.match_ids(truth, regions(seed + 50, count=100))
  colors = pictures.entity_colors(sample, pictures.entity_colors(truth))
  for a, b in touching_pairs(sample):
    assert colors[a] != colors[b]


@pytest.mark.parametrize('count', [12, 30, 300])
@pytest.mark.parametrize('seed', range(3))
def test_neighbours_are_told_apart_at_once(seed, count):
  """Yellow and orange are 20 apart, two greens of a leaf 10."""
  id_map = regions(seed, count)
  assert nearest_neighbours(id_map, pictures.entity_colors(id_map)) > 20


def test_neighbours_are_told_apart_over_any_photo():
  id_map = regions(0)
  photo = np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype='u1')
  picture = pictures.overlay(photo, id_map)
  means = {k: picture[id_map == k].mean(axis=0) for k in range(30)}
  assert nearest_neighbours(id_map, means) > 8
  # The photo's own colours do not mix with those of the segments.
  red = photo * np.array([1, 0, 0], np.uint8)
  grey = np.asarray(Image.fromarray(red).convert('L').convert('RGB'))
  painted = [pictures.overlay(p, id_map) for p in (red, grey)]
  np.testing.assert_array_equal(*painted)


def test_up_to_forty_entities_have_a_colour_each():
  colors = pictures.entity_colors(regions(0))
  assert len(set(colors.values())) == len(colors) == 30


@each_map
def test_colorize_paints_the_chosen_colours(id_map):
  picture = pictures.colorize(id_map)
  assert picture.dtype == np.uint8 and picture.shape == (*id_map.shape, 3)
  for entity, chosen in pictures.entity_colors(id_map).items():
    assert (picture[id_map == entity] == chosen).all()
  ignored = picture[id_map == -1]
  assert (ignored == ignored[:, :1]).all() and (ignored < 100).all()


@each_map
def test_colours_do_not_depend_on_numbering(id_map):
  names = np.random.default_rng(0).permutation(500)
  unique, ranks = np.unique(id_map, return_inverse=True)
  renamed = np.where(unique == -1, -1, names[: len(unique)])
  renamed = renamed[ranks.reshape(id_map.shape)]
  picture = pictures.colorize(id_map)
  np.testing.assert_array_equal(pictures.colorize(id_map), picture)
  np.testing.assert_array_equal(pictures.colorize(renamed), picture)


def test_many_regions_have_the_neighbours_they_touch():
  id_map = np.arange(250 * 280, dtype=np.int32).reshape(250, 280)
  touching = pictures._touching(id_map)
  assert set(touching[[60_000]].indices) == {
    60_000 + down + right for down in (-280, 0, 280) for right in (-1, 0, 1)
  } - {60_000}


def test_given_colours_are_used():
  colors = {entity: (entity, 0, 255) for entity in range(30)}
  picture = pictures.colorize(regions(0), colors)
  np.testing.assert_array_equal(picture[..., 0], regions(0))
  assert (picture[..., 1:] == (0, 255)).all()


def test_new_entities_do_not_take_known_colours():
  truth = regions(0, count=8)
  known = pictures.entity_colors(truth)
  sample = truth.copy()
  sample[10:20, 10:20] = 8
  colors = pictures.entity_colors(sample, known)
  assert {i: colors[i] for i in known} == known
  assert colors[8] not in known.values()


def test_known_entities_come_before_larger_new_ones():
  shades = regions(0, count=64, shape=(128, 128))
  known = pictures.entity_colors(shades)  # no colour is left unused
  for entity in range(64):
    sample = np.full((9, 9), 64, np.int32)
    sample[4, 4] = entity
    assert pictures.entity_colors(sample, known)[entity] == known[entity]


@each_map
def test_match_ids_undoes_a_permutation(id_map):
  names = np.random.default_rng(1).permutation(500)
  unique, ranks = np.unique(id_map, return_inverse=True)
  renamed = np.where(unique == -1, -1, names[: len(unique)])
  renamed = renamed[ranks.reshape(id_map.shape)]
  matched = pictures.match_ids(id_map, renamed)
  assert matched.dtype == np.int32
  np.testing.assert_array_equal(matched, id_map)


@pytest.mark.parametrize(
  'reference, id_map',
  [
    (regions(0, 8), regions(1, 30)),
    (regions(0, 30), regions(1, 8)),
    (with_hole(regions(0)), regions(1)),
    (regions(0), with_hole(regions(1))),
    (np.full((40, 50), -1, np.int32), regions(1)),
  ],
)
def test_match_ids_keeps_the_segments(reference, id_map):
  matched = pictures.match_ids(reference, id_map)
  np.testing.assert_array_equal(matched == -1, id_map == -1)
  assert metrics.adjusted_rand_index(id_map, matched) == 1
  assert len(np.unique(matched)) == len(np.unique(id_map))


def test_segments_without_partner_get_new_ids():
  reference = np.zeros((4, 6), np.int32)
  id_map = np.array([[3, 3, 3, 3, 0, 7]] * 4, np.int32)
  matched = pictures.match_ids(reference, id_map)
  assert matched[0].tolist() == [0, 0, 0, 0, 1, 2]


def test_match_ids_takes_ids_of_any_type():
  reference = np.array([[0, 0, 1, 1]], np.uint8)
  found = pictures.match_ids(reference, np.array([[5, 5, 6, 7]], np.uint8))
  assert found.tolist() == [[0, 0, 1, 2]]


def test_segments_do_not_take_ids_of_entities_they_miss():
  reference = np.array([[0] * 9 + [1]], np.int32)
  id_map = np.array([[5] + [6] * 9], np.int32)
  assert pictures.match_ids(reference, id_map).tolist() == [[2] + [0] * 9]


def test_overlay_mixes_photo_and_colours_inside_contours():
  photo = np.full((40, 50, 3), 80, np.uint8)
  id_map = regions(0, 6)
  inside = np.ones(id_map.shape, bool)
  inside[:, 1:] &= id_map[:, 1:] == id_map[:, :-1]
  inside[1:] &= id_map[1:] == id_map[:-1]
  picture = pictures.overlay(photo, id_map, alpha=0.25)
  assert picture.dtype == np.uint8 and picture.shape == photo.shape
  expected = 0.75 * photo + 0.25 * pictures.colorize(id_map)
  assert np.abs(picture - expected)[inside].max() <= 0.5
  assert (picture[~inside] > 180).all() and not inside.all()
  unmixed = pictures.overlay(photo, id_map, alpha=0)
  assert (unmixed[inside] == 80).all()


@pytest.mark.parametrize('shape', [(30, 60), (300, 400), (19, 1024)])
def test_doubt_shows_where_whatever_its_level(shape):
  photo = np.full((*shape, 3), 90, np.uint8)
  place = np.random.default_rng(0).random(shape)
  height, width = shape
  page = pictures.doubt(photo, 0.6 + 0.3 * place)
  picture = page[:height, :width]
  np.testing.assert_array_equal(
    picture, pictures.doubt(photo, 0.1 + 0.3 * place)[:height, :width]
  )
  grey = (picture == picture[..., :1]).all(axis=-1)
  # The surer half is the photo; of the others, the more the redder.
  assert grey[place < np.median(place)].all()
  assert not grey[place > np.percentile(place, 55)].any()
  green = picture[..., 1][np.unravel_index(place.argsort(axis=None), shape)]
  assert (np.diff(green.astype(int)) <= 1).all() and green[0] > green[-1] + 90
  # Below is a bar of nearly the same colours, between two numbers.
  below, darkest = page[height:], picture.reshape(-1, 3)[place.argmax()]
  assert below.shape[0] < 60
  assert np.abs(below.astype(int) - darkest).max(axis=-1).min() < 15


def test_small_differences_of_doubt_are_not_blown_up():
  photo = np.full((20, 120, 3), 90, np.uint8)
  sure = np.random.default_rng(0).random((20, 120)) * 0.004
  picture = pictures.doubt(photo, sure)[:20].astype(int)
  assert np.ptp(picture, axis=(0, 1)).max() < 20


def gallery_rows():
  photo = np.random.default_rng(0).integers(256, size=(96, 128, 3), dtype='u1')
  truth = pictures.colorize(regions(0, shape=(96, 128)))
  return [
    [(photo, 'photo'), (truth, 'a caption far too long for its column')],
    [(photo[:, :48], ''), (truth[:, :48], ''), (truth[:16, :16], '')],
  ]


def test_gallery_has_the_expected_size(tmp_path):
  path = tmp_path / 'new' / 'gallery.png'
  rows = gallery_rows()
  pictures.gallery(rows, path, titles=['photo', 'truth'], cell_size=160)
  full = Image.open(path)
  assert full.format == 'PNG' and full.mode == 'RGB'
  assert [file.name for file in path.parent.iterdir()] == ['gallery.png']
  # 3 columns of 160, gaps of 6, margins of 12; rows of 120 and 160 pixels, one
  # line of captions and one of titles.
  assert full.size == (3 * 160 + 2 * 6 + 24, 120 + 21 + 6 + 160 + 27 + 24)
  pictures.gallery(rows[:1], path, cell_size=200)
  assert Image.open(path).size == (2 * 200 + 6 + 24, 150 + 21 + 24)


def test_gallery_enlarges_label_maps_without_blur(tmp_path):
  id_map = regions(0, 5, (16, 16))
  picture = pictures.colorize(id_map)
  pictures.gallery([[(picture, '')]], tmp_path / 'g.png', cell_size=160)
  page = np.asarray(Image.open(tmp_path / 'g.png'))
  assert (page[:12] == 255).all() and (page[:, -12:] == 255).all()
  enlarged = picture.repeat(10, axis=0).repeat(10, axis=1)
  np.testing.assert_array_equal(page[12:-12, 12:-12], enlarged)


def test_gallery_writes_captions_under_pictures(tmp_path):
  black = np.zeros((10, 10, 3), np.uint8)
  pictures.gallery([[(black, 'ARI .62')]], tmp_path / 'g.png', titles=['title'])
  page = np.asarray(Image.open(tmp_path / 'g.png').convert('L'))
  assert page[12:38].min() < 100  # title
  assert page[38 + 180 :].min() < 100  # caption
  assert page[:, :12].min() == page[:, -12:].min() == 255


def test_failed_gallery_leaves_the_old_one(tmp_path, monkeypatch):
  path = tmp_path / 'gallery.png'
  path.write_bytes(b'old')

  def full_disk(self, file, **kwargs):
    file.write(b'half')
    raise OSError('no space left')

  monkeypatch.setattr(Image.Image, 'save', full_disk)
  with pytest.raises(OSError, match='no space'):
    pictures.gallery(gallery_rows(), path)
  assert [file.name for file in tmp_path.iterdir()] == ['gallery.png']
  assert path.read_bytes() == b'old'


def test_inputs_are_left_alone(tmp_path):
  photo = np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype='u1')
  id_map, other = with_hole(regions(0)), regions(1)
  uncertainty = np.random.default_rng(1).random((40, 50))
  colors = {0: (1, 2, 3)}
  arrays = photo, id_map, other, uncertainty
  copies = [array.copy() for array in arrays]
  for array in arrays:
    array.setflags(write=False)
  pictures.colorize(id_map, colors)
  pictures.match_ids(id_map, other)
  pictures.doubt(photo, uncertainty)
  pictures.contours(photo, id_map)
  overlay = pictures.overlay(photo, id_map, colors=colors)
  pictures.gallery([[(photo, 'a'), (overlay, 'b')]], tmp_path / 'g.png')
  for array, copy in zip(arrays, copies, strict=True):
    np.testing.assert_array_equal(array, copy)
  assert colors == {0: (1, 2, 3)}


def test_thin_pictures_have_a_place_in_the_gallery(tmp_path):
  thin = np.zeros((1, 1000, 3), np.uint8)
  pictures.gallery([[(thin, ''), (thin[:, :1], 'a')]], tmp_path / 'g.png')
  assert Image.open(tmp_path / 'g.png').size == (2 * 180 + 6 + 24, 180 + 45)


def draw_plot(path):
  figure = pictures.new_figure()
  axes = figure.subplots()
  axes.plot([1, 2], [3, 4], label='a line')
  axes.set_title('A title')
  pictures.save_figure(figure, path)


@pytest.mark.parametrize(
  ('kind', 'begin'), [('png', b'\x89PNG'), ('pdf', b'%PDF'), ('svg', b'<?xml')]
)
def test_a_plot_has_the_format_of_its_name(tmp_path, kind, begin):
  draw_plot(tmp_path / f'a.{kind}')
  (file,) = tmp_path.iterdir()
  content = file.read_bytes()
  assert content.startswith(begin)
  # Vector files hold lines and text but no pixels.
  assert kind == 'png' or not (
    b'/Subtype /Image' in content or b'<image' in content
  )
  assert kind != 'svg' or b'A title</text>' in content
