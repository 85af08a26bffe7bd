"""Panoptic quality: values by hand, and the published rules pixel by pixel."""

import math

import numpy as np
import pytest

from bitseg_jax import metrics


def count_matches(true, pred):
  """The rules of the COCO panoptic task, for one class, mask by mask."""
  iou, found, invented = 0.0, set(), 0
  entities = [i for i in np.unique(true) if i != -1]
  outside = true == -1
  for segment in np.unique(pred):
    mask, matched = pred == segment, False
    for entity in entities:
      shared = (mask & (true == entity)).sum()
      union = (mask | (true == entity)).sum() - (mask & outside).sum()
      if shared / union > 0.5:
        iou, matched = iou + shared / union, True
        found.add(entity)
    if not matched and (mask & outside).sum() / mask.sum() <= 0.5:
      invented += 1
  return iou, len(found), invented, len(entities) - len(found)


def blocks(seed, share):
  """3 x 4 entities, some pixels given away, and one corner not annotated."""
  rng = np.random.default_rng(seed)
  rows, columns = np.indices((18, 24))
  true = rows // 6 * 4 + columns // 6
  other = np.roll(true, rng.integers(1, 8)) // rng.integers(1, 3)
  pred = np.where(rng.random(true.shape) < share, other, true)
  true[: rng.integers(1, 18), : rng.integers(1, 24)] = -1
  return true, pred


def match(true, pred):
  return metrics.panoptic.match(*metrics.panoptic.overlaps(true, pred))


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('share', [0, 0.1, 0.3, 0.9])
def test_counts_are_those_of_the_published_rules(seed, share):
  true, pred = blocks(seed, share)
  assert match(true, pred) == pytest.approx(count_matches(true, pred))


def test_table_is_that_of_the_region_scores():
  true, pred = blocks(0, 0.3)
  valid = np.random.default_rng(1).random(true.shape) < 0.7
  table, outside = metrics.panoptic.overlaps(true, pred, valid)
  expected, _, ids = metrics.contingency(true, pred, valid)
  np.testing.assert_array_equal(table, expected)
  left_out = valid & (true == -1)
  assert outside.tolist() == [(left_out & (pred == i)).sum() for i in ids]


def test_by_hand():
  true = np.array([[1, 1, 1, 1, 2, 2, 3, 3]])
  pred = np.array([[5, 5, 5, 6, 6, 6, 7, 7]])
  assert match(true, pred) == pytest.approx((3 / 4 + 2 / 3 + 1, 3, 0, 0))
  pred = np.array([[5, 5, 6, 6, 6, 6, 7, 7]])  # IoU of 1/2 is no match
  matches = match(true, pred)
  assert matches == pytest.approx((1, 1, 2, 2))
  assert metrics.panoptic.quality(matches) == pytest.approx(
    {'pq': 1 / 3, 'sq': 1, 'rq': 1 / 3}
  )


def test_ends_of_the_scale():
  true, _ = blocks(0, 0)
  quality = lambda *maps: metrics.panoptic.quality(match(*maps)).values()
  assert set(quality(true, true)) == {1.0}
  assert set(quality(true, np.zeros_like(true))) == {0.0}
  assert all(map(math.isnan, quality(np.full_like(true, -1), true)))
