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

PRI, VOI = metrics.rand_index, metrics.variation_of_information
SYMMETRIC = [metrics.adjusted_rand_index, PRI, VOI]
SEVERAL = [metrics.covering, PRI, VOI]  # take several annotators
ALL = [*SYMMETRIC, metrics.hungarian_iou, metrics.covering]


def test_golden_values(golden):
  expected = {key for key in golden if key.startswith('metrics/')}
  seen = set()
  for case in sorted({key.split('/')[1] for key in expected}):
    names = [f'metrics/{case}/{name}' for name in ('gt', 'pred', 'mask')]
    score = metrics.ari_and_iou(*(golden[name] for name in names))
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
def test_scores_agree_with_other_libraries_and_with_masks(true, pred):
  expected = sklearn.metrics.adjusted_rand_score(true.ravel(), pred.ravel())
  assert metrics.adjusted_rand_index(true, pred) == pytest.approx(expected)
  bits = sum(skimage.metrics.variation_of_information(true, pred))
  assert VOI(pred, true) == pytest.approx(bits, abs=1e-9)
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
  names = np.random.default_rng(0).permutation(1000)
  # Both the small ids of most maps and ids too large for a lookup table.
  for renamed in names[true % 1000], names[true % 1000] * 10_000_000_000:
    assert metric(renamed, pred) == pytest.approx(metric(true, pred))
    assert metric(pred, renamed) == pytest.approx(metric(pred, true))
  if metric in SYMMETRIC:
    assert metric(true, pred) == pytest.approx(metric(pred, true), abs=1e-12)


@pytest.mark.parametrize('true, pred', PAIRS)
def test_left_out_pixels_are_as_if_cropped_away(true, pred):
  valid = np.ones(true.shape, bool)
  valid[12:] = valid[:, 15:] = False
  ignored = np.where(valid, true, IGNORE_ID)
  cropped, cropped_pred = true[:12, :15], pred[:12, :15]
  expected = metrics.ari_and_iou(cropped, cropped_pred)
  assert metrics.ari_and_iou(true, pred, valid) == expected
  assert metrics.ari_and_iou(ignored, pred) == expected
  assert metrics.ari_and_iou(ignored, pred, valid) == expected
  for metric in SEVERAL:
    assert metric(pred, ignored) == metric(cropped_pred, cropped)


def test_neither_the_type_of_ids_matters_nor_which_is_unlabelled():
  true, pred = blocks(), noisy(blocks(), 0)
  expected = metrics.ari_and_iou(true, pred)
  for dtype in 'uint8', 'uint16', 'int16', 'int64':
    assert (
      metrics.ari_and_iou(true.astype(dtype), pred.astype(dtype)) == expected
    )
  # Unlabelled pixels of a prediction are one more segment.
  assert metrics.ari_and_iou(true, np.where(pred == 3, -1, pred)) == expected


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
  assert metrics.ari_and_iou(id_map, renamed) == {'ari': 1.0, 'iou': 1.0}
  assert metrics.covering(renamed, [id_map, id_map]) == 1.0
  assert metrics.rand_index(renamed, id_map) == 1.0
  assert metrics.variation_of_information(renamed, id_map) == 0.0


def test_one_segment_has_chance_level_ari_and_one_match():
  flat = np.zeros((18, 24), int)
  assert metrics.adjusted_rand_index(blocks(), flat) == 0.0
  # One of 12 entities gets IoU 1/12.
  assert metrics.hungarian_iou(blocks(), flat) == pytest.approx(1 / 12 / 12)


def test_large_maps_do_not_overflow():
  true = np.zeros((1000, 1000), np.int32)
  true[:, 500:] = 1
  assert metrics.ari_and_iou(true, true) == {'ari': 1.0, 'iou': 1.0}
  assert PRI(np.zeros_like(true), true) == pytest.approx(0.5, abs=1e-6)


def test_nothing_valid_is_nan():
  true, pred = blocks(), noisy(blocks(), 0)
  nothing = np.full_like(true, -1)
  invalid = metrics.ari_and_iou(true, pred, np.zeros(true.shape, bool))
  assert all(map(math.isnan, invalid.values()))
  assert math.isnan(metrics.adjusted_rand_index(nothing, pred))
  assert math.isnan(metrics.hungarian_iou(nothing, pred))
  assert all(math.isnan(metric(pred, [nothing])) for metric in SEVERAL)


@pytest.mark.parametrize('metric', SEVERAL)
def test_annotators_are_averaged_and_empty_ones_left_out(metric):
  pred, first, second = (noisy(blocks(), seed) for seed in (0, 1, 2))
  expected = (metric(pred, first) + metric(pred, second)) / 2
  several = metric(pred, [first, np.full_like(first, -1), second])
  assert several == pytest.approx(expected)
  assert metric(pred, np.stack([first, second])) == pytest.approx(expected)


def test_covering_of_several_predictions_is_their_mean():
  samples = [noisy(blocks(), seed) for seed in (0, 1)]
  expected = np.mean([metrics.covering(s, blocks()) for s in samples])
  assert metrics.covering(samples, blocks()) == pytest.approx(expected)


def disagreement(true, pred):
  return 1 - metrics.adjusted_rand_index(true, pred)


def test_energy_distance_compares_distributions():
  """Equal ones are at 0, single maps at twice their distance."""
  ged = lambda *sets: metrics.generalized_energy_distance(*sets, disagreement)
  maps = [noisy(blocks(), seed) for seed in (0, 1, 2)]
  assert ged(maps, maps[::-1]) == pytest.approx(0, abs=1e-12)
  single = 2 * disagreement(blocks(), maps[0])
  assert ged([maps[0]], [blocks()]) == pytest.approx(single)
  both = [blocks(), blocks() // 4]
  assert ged(both, both) < ged([blocks(), blocks()], both)


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
    metrics.ari_and_iou(true, pred, valid)
  assert '\n' not in str(error.value)
  with pytest.raises(ValueError, match='annotations is empty'):
    metrics.rand_index(blocks(), [])
