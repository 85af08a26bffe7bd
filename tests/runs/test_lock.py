"""One program at a time in a folder; a killed one leaves no lock behind."""

import signal
import subprocess
import sys

import pytest

from bitseg_jax.runs import log

HOLDER = """
import sys, time
from bitseg_jax.runs import log
with log.hold(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
"""


def test_the_second_is_told_who_holds_it_until_the_first_is_killed(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLDER, str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert holder.stdout.readline() == 'held\n'
  with (
    pytest.raises(log.LockedError, match=f'in use by process {holder.pid} on'),
    log.hold(tmp_path),
  ):
    pass
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  with log.hold(tmp_path):
    pass


def test_a_folder_may_be_held_again_after_an_error(tmp_path):
  with pytest.raises(KeyError), log.hold_for_all(tmp_path / 'new'):
    raise KeyError
  with log.hold_for_all(tmp_path / 'new'):
    pass
