"""Clicks on the page: what they say to the model, and taking them back."""

import json

import numpy as np
import pytest

from bitseg_jax import metrics
from bitseg_jax.app import known as user
from bitseg_jax.app.answer import AnswerOptions
from bitseg_jax.app.page import actions, board
from bitseg_jax.app.page.board import Marks, act, as_json, known, letter
from bitseg_jax.app.segmenter import Segmenter

SIZE = 40, 60


def click(x, y):
  return {'point': [(x + 0.5) / SIZE[1], (y + 0.5) / SIZE[0]]}


def do(*what, marks=None):
  marks = marks or Marks()
  for one in what:
    marks = act(marks, one, SIZE)
  return marks


NEW, UNDO, CLEAR = ({'act': name} for name in ('new', 'undo', 'clear'))


def test_clicks_belong_to_the_chosen_entity():
  marks = do(click(3, 4), click(50, 30), NEW, click(20, 9), {'act': '0'})
  assert [mark.entity for mark in marks.done] == [0, 0, 1]
  assert (marks.active, marks.count) == (0, 2)
  ids = known(marks, SIZE)
  assert ids[4, 3] == ids[30, 50] == 0 and ids[9, 20] == 1
  assert (ids >= 0).sum() == 3
  # The first click begins an entity, and the next belong to it.
  assert do(click(3, 4)).active == 0


def test_undo_takes_the_last_click_back_and_clear_all():
  clicks = click(3, 4), NEW, click(50, 30), click(9, 9)
  states = [do(*clicks[:n]) for n in range(len(clicks) + 1)]
  assert do(UNDO, marks=states[4]) == states[3]
  # The entity that the last click began is gone: the next begins it again.
  assert do(UNDO, UNDO, marks=states[4]) == states[2]
  assert do(UNDO, UNDO, UNDO, UNDO, marks=states[4]) == Marks()
  assert do(CLEAR, marks=states[4]) == Marks()


def test_the_later_of_two_marks_counts():
  hidden = known(do(click(5, 5), NEW, click(5, 5)), SIZE)
  assert [mark['id'] for mark in as_json(hidden)] == [2]


@pytest.mark.parametrize(
  'what',
  [
    {},
    {'act': None},
    {'act': '7'},
    {'act': '<b>'},
    UNDO,
  ],
)
def test_what_no_page_sends_does_nothing(what):
  marks = Marks()
  assert act(marks, what, SIZE) == marks


def test_places_outside_are_at_the_border():
  marks = do({'point': [-1.0, 2.0]}, {'point': [1.0, 1.0]})
  assert [mark[1:] for mark in marks.done] == [(0, 39), (59, 39)]


def test_letters_never_end():
  names = [letter(k) for k in range(800)]
  assert names[:2] + names[25:28] == ['A', 'B', 'Z', 'A1', 'B1']
  assert len(set(names)) == 800


def test_marks_are_drawn_with_their_letters():
  marks = do(click(3, 4), NEW, click(20, 9))
  drawn = board.marks_html(marks)
  assert drawn.count('class="mark"') == 2
  assert 'M3.5 4.5h0' in drawn and '>B</text>' in drawn
  buttons = board.chips(marks)
  assert buttons.count('data-act') == 5 and 'disabled' not in buttons
  assert board.chips(Marks()).count('disabled') == 2


def test_marks_of_the_page_are_read_by_the_command(tmp_path):
  """At the photo's own size: the pixels in the middle of those clicked on."""
  marks, full = do(click(3, 4), NEW, click(20, 9), click(59, 39)), (400, 600)
  path = tmp_path / 'marks.json'
  path.write_text(json.dumps({'photo': as_json(known(marks, SIZE, full))}))
  read = user.read(user.open_place(path, ['photo']), 'photo', full)
  assert read[45, 35] == 1 and read[95, 205] == read[395, 595] == 2
  assert (read >= 0).sum() == 3


@pytest.fixture(scope='module')
def answered(random_run, draw_photo):
  """A large photo before two clicks and after them."""
  model = Segmenter.from_checkpoint(random_run)
  photo = actions.Upload('a.jpg', draw_photo(0, *SIZE), (120, 180))
  options = AnswerOptions(num_samples=2)
  segment = lambda *how: actions.segment(model, photo, options, *how)
  before = segment(Marks())
  return before, segment(do(click(3, 4), NEW, click(20, 9)), before)


def test_a_click_is_obeyed_and_colours_stay(answered):
  before, after = answered
  assert after.result.id_map[4, 3] != after.result.id_map[9, 20]
  ari = metrics.adjusted_rand_index(after.matched, after.result.id_map)
  assert ari == 1
  stayed = [k for k in after.colors if k in before.colors]
  same = [after.colors[k] == before.colors[k] for k in stayed]
  assert stayed and np.mean(same) > 0.5
  assert 'true to 2 marks' in actions.summary(after)


def test_another_photo_owes_nothing_to_the_last(
  answered, random_run, draw_photo
):
  before, _ = answered
  model = Segmenter.from_checkpoint(random_run)
  photo = actions.Upload('b.jpg', draw_photo(1, 30, 20), (30, 20))
  options = AnswerOptions(num_samples=2)
  after = actions.segment(model, photo, options, Marks(), before)
  np.testing.assert_array_equal(after.matched, after.result.id_map)


def test_files_are_what_is_shown_at_the_size_of_the_photo(answered, tmp_path):
  _, after = answered
  full = actions.at_full_size(after)
  assert full.id_map.shape == full.uncertainty.shape == (120, 180)
  assert full.confidence.shape == (full.id_map.max() + 1,)
  ari = metrics.adjusted_rand_index(
    after.result.id_map, full.id_map[1::3, 1::3]
  )
  assert ari > 0.8
  assert full.id_map[13, 10] != full.id_map[28, 61]
  names = [
    p.rsplit('/', 1)[1] for p in actions.write_files(after, tmp_path, {})[1]
  ]
  assert {'a_marks.json', 'a.json', 'a.zip'} < set(names)
