"""Files appear whole, leave nothing behind, and folders have one holder."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from bitseg_jax.data import outside
from bitseg_jax.runs import log


def test_a_file_appears_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('old')
  with pytest.raises(KeyError), log.whole_file(path) as file:
    file.write('half')
    raise KeyError
  assert path.read_text() == 'old'
  with log.whole_file(path) as file:
    file.write('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new'
  assert os.listdir(tmp_path) == ['a.txt']


def test_a_link_is_replaced_and_its_target_kept(tmp_path):
  target, link = tmp_path / 'target', tmp_path / 'link'
  target.write_text('kept')
  link.symlink_to(target)
  log.write_json(link, {'a': 1})
  assert target.read_text() == 'kept' and not link.is_symlink()


def test_a_name_of_any_legal_length_is_written(tmp_path):
  path = tmp_path / ('照' * 80 + '.txt')  # 244 bytes of the 255 allowed
  with log.whole_file(path) as file:
    file.write('new')
  assert path.read_text() == 'new'


KILLED = """
import os, signal, sys
from bitseg_jax.runs import log
with log.whole_file(sys.argv[1] + '/b.json') as file:
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_replaced_by_the_next(tmp_path):
  subprocess.run([sys.executable, '-c', KILLED, str(tmp_path)], timeout=120)
  assert len(os.listdir(tmp_path)) == 1
  with log.whole_file(tmp_path / 'b.json') as file:
    file.write('1')
  assert os.listdir(tmp_path) == ['b.json']


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
  """The errors of writing and flushing name none."""

  def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  named = lambda name: pytest.raises(OSError, match=f"left .*: '.*/{name}'")
  with named('a.json'), log.whole_file(tmp_path / 'a.json'):
    fail()
  writer = log.MetricWriter(tmp_path)
  monkeypatch.setattr(os, 'fsync', fail)
  with named('metrics.jsonl'):
    writer.flush()
  monkeypatch.setattr(pathlib.Path, 'write_text', fail)
  with named('.lock'), log.hold(tmp_path):
    pass


def test_what_json_lacks_becomes_null(tmp_path):
  content = {'a': [float('nan'), (np.float64('inf'), 1.5)], 'b': 'nan', 'c': 2}
  log.write_json(tmp_path / 'a.json', content)
  read = outside.read_json(tmp_path / 'a.json')
  assert read == {'a': [None, [None, 1.5]], 'b': 'nan', 'c': 2}


HOLDER = """
import sys, time
from bitseg_jax.runs import log
with log.hold(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
"""


def test_the_second_is_told_who_holds_it_until_the_first_is_killed(tmp_path):
  command = [sys.executable, '-c', HOLDER, str(tmp_path)]
  holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  assert holder.stdout.readline() == 'held\n'
  who = f'in use by process {holder.pid} on'
  with pytest.raises(OSError, match=who), log.hold(tmp_path):
    pass
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  with log.hold(tmp_path):
    pass


def test_a_folder_may_be_held_again_after_an_error(tmp_path):
  with pytest.raises(KeyError), log.hold(tmp_path / 'new'):
    raise KeyError
  with log.hold(tmp_path / 'new'):
    pass
