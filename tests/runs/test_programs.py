"""What is compiled is kept for the next start, and only for what it fits."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitseg_jax.runs import devices, programs


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """An empty ~/.cache, to which the programs of a test go."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(programs, '_folder', [])
  cache = jax.config.jax_compilation_cache_dir  # that of all tests
  jax.config.update('jax_compilation_cache_dir', None)
  programs.keep_programs()
  (place,) = programs._folder
  assert place.is_relative_to(tmp_path) and place.is_dir()
  yield place
  jax.config.update('jax_compilation_cache_dir', cache)


def scale(traced, by):
  """x -> x * by, jitted, which tells when it is traced."""

  def function(x):
    traced.append(by)
    return jnp.tanh(x) * by

  everywhere = devices.copied_on(devices.make_mesh())
  return jax.jit(function, in_shardings=everywhere, out_shardings=everywhere)


def test_a_kept_program_is_not_traced_again(folder):
  traced, x = [], np.arange(5, dtype=np.float32)
  found = [programs.kept(scale(traced, 2.0), 'twice')(x) for _ in range(3)]
  assert traced == [2.0]
  for value in found:
    np.testing.assert_array_equal(value, scale([], 2.0)(x))
  # Another one is not taken for it, and the same function may be called twice.
  thrice = programs.kept(scale(traced, 3.0), 'thrice')
  np.testing.assert_array_equal(thrice(x), thrice(x))
  assert traced == [2.0, 3.0]
  assert len(list(folder.glob('*.program'))) == 2


@pytest.mark.parametrize('damage', ['a bit', 'half', 'empty'])
def test_a_damaged_program_is_compiled_anew(folder, damage):
  traced, x = [], np.ones(3, np.float32)
  once = programs.kept(scale(traced, 2.0))(x)
  (path,) = folder.glob('*.program')
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[len(whole) // 2] ^= 1
  broken = {'a bit': bytes(flipped), 'half': whole[: len(whole) // 2]}
  path.write_bytes(broken.get(damage, b''))
  np.testing.assert_array_equal(programs.kept(scale(traced, 2.0))(x), once)
  assert len(traced) == 2
  programs.kept(scale(traced, 2.0))(x)
  assert len(traced) == 2  # the new one was kept


def test_a_program_is_kept_for_the_flags_it_was_compiled_with(
  folder, monkeypatch
):
  traced, x = [], np.ones(3, np.float32)
  programs.kept(scale(traced, 2.0))(x)
  monkeypatch.setenv('XLA_FLAGS', '--of_another_start')
  programs.kept(scale(traced, 2.0))(x)
  assert len(traced) == 2


def test_the_oldest_programs_go(folder, monkeypatch):
  monkeypatch.setattr(programs, '_MOST', 2)
  for by in range(4):
    programs.kept(scale([], float(by)), by)(np.ones(1, np.float32))
  assert len(list(folder.glob('*.program'))) == 2


def test_what_the_user_told_jax_to_keep_stays_so(folder, monkeypatch):
  function = scale([], 1.0)
  told = mock.Mock(jax_compilation_cache_dir='elsewhere')
  monkeypatch.setattr(jax, 'config', told)
  programs.keep_compiled('folder')
  assert not told.update.mock_calls
  assert programs.kept(function) is function
  told.jax_compilation_cache_dir = None
  programs.keep_compiled('folder')
  told.update.assert_called_once_with('jax_compilation_cache_dir', 'folder')


def test_where_nothing_can_be_kept_functions_stay(tmp_path, monkeypatch):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  monkeypatch.setattr(programs, '_folder', [])
  programs.keep_programs()
  assert not programs._folder
