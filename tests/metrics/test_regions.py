"""Metrics: recorded values, other libraries, brute force, invariances."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import skimage.metrics
import sklearn.metrics

from bitseg_jax import IGNORE_ID, metrics


def random_map(seed, entities, shape=(17, 23)):
  return np.random.default_rng(seed).integers(entities, size=shape, dtype='i4')


def noisy(id_map, seed, share=0.3):
  """The map with some of its pixels given to other entities."""
  rng = np.random.default_rng(seed)
  other = rng.integers(id_map.max() + 3, size=id_map.shape, dtype='i4')
  return np.where(rng.random(id_map.shape) < share, other, id_map)


def blocks(shape=(18, 24)):
  """A 3 x 4 checkerboard of entities."""
  rows, columns = np.indices(shape)
  return (rows // 6 * 4 + columns // 6).astype(np.int32)


PAIRS = [
  (random_map(0, 5), random_map(1, 7)),
  (blocks(), noisy(blocks(), 2)),
  (blocks(), noisy(blocks(), 3, 0.02)),
  (noisy(blocks(), 4) * 99_991, noisy(blocks(), 5) * 7919),
  (random_map(6, 1), random_map(7, 4)),
]

SYMMETRIC = [
  metrics.adjusted_rand_index,
  metrics.rand_index,
  metrics.variation_of_information,
]
ALL = [*SYMMETRIC, metrics.hungarian_iou, metrics.covering]


def test_golden_values(golden):
  expected = {key for key in golden if key.startswith('metrics/')}
  seen = set()
  for case in sorted({key.split('/')[1] for key in expected}):
    names = [f'metrics/{case}/{name}' for name in ('gt', 'pred', 'mask')]
    score = metrics.scores(*(golden[name] for name in names))
    seen.update(names)
    for name, value in ('ari', score['ari']), ('iou_gt_mean', score['iou']):
      key = f'metrics/{case}/{name}'
      if key in expected:
        assert value == pytest.approx(float(golden[key]), abs=1e-6), key
        seen.add(key)
  assert len(seen) == 8 * 5 - 1  # the official IoU of case 0 is a known fault
  assert seen == expected


@pytest.mark.parametrize('scale', [1, 10**9])
def test_contingency_counts_shared_pixels(scale):
  true = np.array([[7, 7, 7], [3, 3, -1]])
  pred = np.array([[-1, 5, 5], [2, 2, 9]])
  table, entities, segments = metrics.contingency(
    np.where(true < 0, true, scale * true),
    np.where(pred < 0, pred, scale * pred),
  )
  assert table.tolist() == [[0, 2, 0], [1, 0, 2]]
  assert entities.tolist() == [3 * scale, 7 * scale]
  assert segments.tolist() == [-1, 2 * scale, 5 * scale]


@pytest.mark.parametrize('true, pred', PAIRS)
def test_ari_agrees_with_sklearn(true, pred):
  expected = sklearn.metrics.adjusted_rand_score(true.ravel(), pred.ravel())
  assert metrics.adjusted_rand_index(true, pred) == pytest.approx(expected)


@pytest.mark.parametrize('true, pred', PAIRS)
def test_variation_of_information_agrees_with_skimage(true, pred):
  expected = sum(skimage.metrics.variation_of_information(true, pred))
  value = metrics.variation_of_information(pred, true)
  assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('true, pred', PAIRS)
def test_iou_and_covering_agree_with_comparing_masks(true, pred):
  entities = [true == i for i in np.unique(true)]
  segments = [pred == i for i in np.unique(pred)]
  iou = np.array(
    [[(e & s).sum() / (e | s).sum() for s in segments] for e in entities]
  )
  matched = iou[scipy.optimize.linear_sum_assignment(-iou)].sum()
  sizes = np.array([e.sum() for e in entities])
  assert metrics.hungarian_iou(true, pred) == pytest.approx(matched / len(iou))
  covered = (sizes * iou.max(axis=1)).sum() / sizes.sum()
  assert metrics.covering(pred, true) == pytest.approx(covered)


def test_rand_index_counts_pixel_pairs():
  pred = random_map(0, 3, (4, 5))
  annotations = [random_map(i, 4, (4, 5)) for i in (1, 2, 3)]
  agreements = [
    (pred.flat[i] == pred.flat[j]) == (annotation.flat[i] == annotation.flat[j])
    for annotation in annotations
    for i, j in itertools.combinations(range(pred.size), 2)
  ]
  value = metrics.rand_index(pred, annotations)
  assert value == pytest.approx(np.mean(agreements))


@pytest.mark.parametrize('metric', ALL)
@pytest.mark.parametrize('true, pred', PAIRS)
def test_ids_carry_no_meaning(metric, true, pred):
  rng = np.random.default_rng(0)
  names = rng.permutation(1000)
  # Both the small ids of most maps and ids too large for a lookup table.
  for renamed in names[true % 1000], names[true % 1000] * 10_000_000_000:
    assert metric(renamed, pred) == pytest.approx(metric(true, pred))
    assert metric(pred, renamed) == pytest.approx(metric(pred, true))


@pytest.mark.parametrize('metric', SYMMETRIC)
@pytest.mark.parametrize('true, pred', PAIRS)
def test_symmetry(metric, true, pred):
  assert metric(true, pred) == pytest.approx(metric(pred, true), abs=1e-12)


@pytest.mark.parametrize('true, pred', PAIRS)
def test_left_out_pixels_are_as_if_cropped_away(true, pred):
  valid = np.ones(true.shape, bool)
  valid[12:] = valid[:, 15:] = False
  ignored = np.where(valid, true, IGNORE_ID)
  cropped, cropped_pred = true[:12, :15], pred[:12, :15]
  expected = metrics.scores(cropped, cropped_pred)
  assert metrics.scores(true, pred, valid) == expected
  assert metrics.scores(ignored, pred) == expected
  assert metrics.scores(ignored, pred, valid) == expected
  for metric in (
    metrics.covering,
    metrics.rand_index,
    metrics.variation_of_information,
  ):
    assert metric(pred, ignored) == metric(cropped_pred, cropped)


def test_unlabelled_prediction_is_one_more_segment():
  pred = noisy(blocks(), 0)
  unlabelled = np.where(pred == 3, -1, pred)
  assert metrics.scores(blocks(), unlabelled) == metrics.scores(blocks(), pred)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'int64'])
def test_id_type_does_not_matter(dtype):
  pred = noisy(blocks(), 0)
  as_type = metrics.scores(blocks().astype(dtype), pred.astype(dtype))
  assert as_type == metrics.scores(blocks(), pred)


@pytest.mark.parametrize(
  'id_map',
  [
    np.zeros((8, 9), np.int32),
    np.arange(72, dtype=np.int32).reshape(8, 9),
    blocks(),
    np.zeros((1, 1), np.int32),
  ],
  ids=['one entity', 'a pixel each', 'blocks', 'one pixel'],
)
def test_identical_maps_are_exactly_perfect(id_map):
  renamed = id_map.max() - id_map
  assert metrics.scores(id_map, renamed) == {'ari': 1.0, 'iou': 1.0}
  assert metrics.covering(renamed, [id_map, id_map]) == 1.0
  assert metrics.rand_index(renamed, id_map) == 1.0
  assert metrics.variation_of_information(renamed, id_map) == 0.0


def test_one_segment_has_chance_level_ari():
  assert metrics.adjusted_rand_index(blocks(), np.zeros((18, 24), int)) == 0.0


def test_unmatched_entities_score_zero():
  score = metrics.hungarian_iou(blocks(), np.zeros((18, 24), int))
  assert score == pytest.approx(1 / 12 / 12)  # one of 12 gets IoU 1/12


def test_large_maps_do_not_overflow():
  true = np.zeros((1000, 1000), np.int32)
  true[:, 500:] = 1
  assert metrics.scores(true, true) == {'ari': 1.0, 'iou': 1.0}
  assert metrics.rand_index(np.zeros_like(true), true) == pytest.approx(
    0.5, abs=1e-6
  )


def test_nothing_valid_is_nan():
  true, pred = blocks(), noisy(blocks(), 0)
  nothing = np.full_like(true, -1)
  for score in (
    *metrics.scores(true, pred, np.zeros(true.shape, bool)).values(),
    metrics.adjusted_rand_index(nothing, pred),
    metrics.hungarian_iou(nothing, pred),
    metrics.covering(pred, [nothing]),
    metrics.rand_index(pred, [nothing]),
    metrics.variation_of_information(pred, [nothing]),
  ):
    assert math.isnan(score)


def test_annotators_are_averaged_and_empty_ones_left_out():
  pred, first, second = (noisy(blocks(), seed) for seed in (0, 1, 2))
  nothing = np.full_like(first, -1)
  for metric in (
    metrics.covering,
    metrics.rand_index,
    metrics.variation_of_information,
  ):
    expected = (metric(pred, first) + metric(pred, second)) / 2
    several = metric(pred, [first, nothing, second])
    assert several == pytest.approx(expected)
    assert metric(pred, np.stack([first, second])) == pytest.approx(expected)


def test_covering_of_several_predictions_is_their_mean():
  samples = [noisy(blocks(), seed) for seed in (0, 1)]
  expected = np.mean([metrics.covering(s, blocks()) for s in samples])
  assert metrics.covering(samples, blocks()) == pytest.approx(expected)


def disagreement(true, pred):
  return 1 - metrics.adjusted_rand_index(true, pred)


def test_energy_distance_of_equal_distributions_is_zero():
  maps = [noisy(blocks(), seed) for seed in (0, 1, 2)]
  same = metrics.generalized_energy_distance(maps, maps[::-1], disagreement)
  assert same == pytest.approx(0, abs=1e-12)


def test_energy_distance_of_single_maps_is_twice_their_distance():
  first, second = blocks(), noisy(blocks(), 0)
  value = metrics.generalized_energy_distance([second], [first], disagreement)
  assert value == pytest.approx(2 * disagreement(first, second))


def test_energy_distance_rewards_covering_every_annotation():
  annotations = [blocks(), blocks() // 4]
  both = metrics.generalized_energy_distance(
    [blocks(), blocks() // 4], annotations, disagreement
  )
  one = metrics.generalized_energy_distance(
    [blocks(), blocks()], annotations, disagreement
  )
  assert both < one


@pytest.mark.parametrize(
  'true, pred, valid, message',
  [
    (blocks(), blocks()[:5], None, r'\(18, 24\), pred \(5, 24\)'),
    (blocks(), blocks(), np.ones((2, 2), bool), r'valid \(2, 2\)'),
    (blocks(), blocks() / 2, None, 'pred must hold integer ids'),
    (blocks(), blocks(), np.ones((18, 24)), 'valid must be bool'),
  ],
)
def test_bad_input_is_refused_in_one_line(true, pred, valid, message):
  with pytest.raises(ValueError, match=message) as error:
    metrics.scores(true, pred, valid)
  assert '\n' not in str(error.value)


def test_no_annotation_is_refused():
  with pytest.raises(ValueError, match='annotations is empty'):
    metrics.rand_index(blocks(), [])
