"""What a setting may be, and checks of a config before anything is compiled.

configs/base.py lists every setting once, as a Setting.
"""

import importlib
import json
import numbers
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from bitseg_jax import codec as codecs
from bitseg_jax import palette, sampler


class Setting(NamedTuple):
  """One setting of the config; None stands for no bound."""

  default: Any  # also its type; a float also takes an int, a tuple see `of`
  meaning: str  # what it does, for people, with its unit
  least: float | None = None
  most: float | None = None
  choices: Sequence[Any] | None = None
  of: type | None = None  # of a tuple's elements, which all this applies to
  length: int | None = None  # of a tuple
  # Whether it may change when a run is resumed, because it says where data
  # lies, how fast it is computed, how long it trains or what is shown.
  free: bool = False

  @property
  def bounds(self) -> tuple[float | None, float | None]:
    """The smallest and the largest value allowed."""
    return self.least, self.most

  @property
  def allowed(self) -> str:
    """Its choices, or its bounds, as text."""
    bounds = ('>=', self.least), ('<=', self.most)
    values = [f'{sign} {bound}' for sign, bound in bounds if bound is not None]
    return ', '.join(map(str, self.choices or values))


Settings = Mapping[str, 'Setting | Settings']

# Settings of earlier versions, with the value that turned each of them off;
# None: whatever it was, it changed no number.
_GONE = {
  'data.paste_rate': 0.0,
  'diffusion.loss': 'squared',
  'diffusion.size_power': 0.0,
  'diffusion.prompt_rate': 0.0,
  'diffusion.self_conditioning': False,
  'model.fold_columns': False,
  'model.fused_attention': None,
  'model.remat': None,
  'sample.guidance_interval': (0.0, 1.0),
  'sample.time_difference': 0.0,
  'train.steps_per_call': None,
}


def to_config(settings: Settings) -> ConfigDict:
  """Makes a locked config that holds the default of every setting."""
  config = ConfigDict()
  for name, s in settings.items():
    config[name] = s.default if isinstance(s, Setting) else to_config(s)
  return config.lock()


def check(config: ConfigDict) -> None:
  """Raises ValueError, one line, unless all settings are valid and fit."""
  check_ranges(config)
  data, diff = config.data, config.diffusion
  for section, name in ('eval', 'weights'), ('model', 'channel_mults'):
    if not config[section][name]:
      raise ValueError(f'config.{section}.{name} is (); give at least one')
  if diff.tanh and diff.pred_type != 'x':
    raise ValueError(
      'config.diffusion.tanh bounds the output to [-1, 1], which pred_type '
      f'{diff.pred_type!r} is not; set --config.diffusion.tanh=False'
    )
  codecs.make_codec(config.codes.encoding, config.codes.num_codes)
  if config.codes.palette != 'none':
    palette.make_palette(config.codes.num_codes, config.codes.palette)
  _check_model(config.model, data.image_size, data.code_size)
  _check_data(data)


def check_ranges(config: ConfigDict) -> None:
  """Raises ValueError unless every value has its setting's type and range."""
  settings, values = flatten_dict(_settings(), sep='.'), _flat(config)
  for name in sorted(values.keys() - settings.keys()):
    raise ValueError(f'config.{name} is no setting; configs/base.py lists them')
  for name, setting in settings.items():
    if name not in values:
      raise ValueError(f'config.{name} is missing')
    check_value(f'config.{name}', values[name], setting)


def check_value(name: str, value: Any, setting: Setting) -> None:
  """Raises ValueError unless a value has the setting's type and range."""
  values, where = [value], ''
  if setting.of is not None:
    if not isinstance(value, (tuple, list)):
      raise ValueError(f'{name} is {_shown(value)}; give a tuple like (1, 2)')
    values, where = value, f' in {_shown(value)}'
    if setting.length not in (None, len(value)):
      raise ValueError(
        f'{name} is {_shown(value)}; give {setting.length} values'
      )
  for each in values:
    if needed := _unfulfilled(each, setting):
      raise ValueError(f'{name} is {_shown(each)}{where}; it must be {needed}')


def _unfulfilled(value, setting):
  """What a value, or an element of it, must be and is not; else None."""
  kind, least, most = setting.of or type(setting.default), *setting.bounds
  accepted, words = _KINDS[kind]
  # In Python True is an int, but it is no valid number here.
  is_flag = isinstance(value, bool)
  if not isinstance(value, accepted) or is_flag != (kind is bool):
    return words
  if setting.choices and value not in setting.choices:
    return f'one of {", ".join(map(str, setting.choices))}'
  # Written so that nan, which compares to nothing, is in no range.
  if least is not None and not value >= least:
    return f'at least {least}'
  if most is not None and not value <= most:
    return f'at most {most}'
  return None


_KINDS = {  # what each type accepts, and its name
  bool: (bool, 'True or False'),
  int: (numbers.Integral, 'a whole number'),
  float: (numbers.Real, 'a number'),
  str: (str, 'text'),
}


def _shown(value):
  value = tuple(value) if isinstance(value, list) else value
  return ' '.join(repr(value).split())


def _check_model(model, image_size, code_size):
  levels, heads = len(model.channel_mults), model.num_heads
  side, factor = code_size or image_size, model.patch_size * 2 ** (levels - 1)
  if image_size % side or side % factor:
    raise ValueError(
      f'config.data.image_size is {image_size} and the side of the codes '
      f'{side}, which must divide it and, with {levels} levels and patches of '
      f'{model.patch_size}, be a multiple of {factor}'
    )
  if model.encoder != 'none' and image_size % 32:
    raise ValueError(
      f'config.data.image_size is {image_size}: encoders need a multiple of 32'
    )
  if max(model.attention_levels, default=0) >= levels:
    raise ValueError(
      f'config.model.attention_levels names level '
      f'{max(model.attention_levels)}; there are levels 0 to {levels - 1}'
    )
  for level in (*model.attention_levels, -1):  # -1 stands for the middle
    width = model.base_channels * model.channel_mults[level]
    if model.attention_levels and width % heads:
      raise ValueError(
        f'config.model: attention on {width} channels cannot be split into '
        f'num_heads = {heads}'
      )


def _check_data(data):
  scale, names = data.crop_scale, _dataset_names(data) if data.dirs else []
  if scale[0] > scale[1]:
    raise ValueError(
      f'config.data.crop_scale is {tuple(scale)}; give (least, most) area'
    )
  if len(set(names)) < len(names) or (names and data.source != 'tfds'):
    raise ValueError(
      f'config.data.dirs are {", ".join(data.dirs)}; their last parts name the '
      'datasets and must differ, and config.data.source must be tfds'
    )
  if data.weights and len(data.weights) != len(names):
    raise ValueError(
      f'config.data.weights are {tuple(data.weights)}; give one over 0 for '
      f'each of the {len(names)} config.data.dirs, or ()'
    )


def _dataset_names(data):
  return [pathlib.PurePath(path).name for path in data.dirs or [data.dir]]


def without_paths(config: ConfigDict) -> dict[str, Any]:
  """Returns a config as JSON without folders, but for names of datasets."""
  settings = json.loads(json.dumps(config.to_dict()))
  name = lambda path: pathlib.PurePath(path).name
  settings['init_from'] = ''
  settings['distill']['teacher'] = name(settings['distill']['teacher'])
  settings['data']['dir'] = name(settings['data']['dir'])
  settings['data']['dirs'] = list(map(name, settings['data']['dirs']))
  return settings


def complete(saved: Mapping[str, Any]) -> ConfigDict:
  """Completes and checks a saved config, nested dicts as read from JSON.

  Settings that an earlier version lacked take their defaults, which leave an
  older run as it was. ValueError names an unknown or invalid setting.
  """
  if not isinstance(saved, Mapping):
    raise ValueError(f'the saved config is {saved!r:.50}, no sections')
  config = to_config(_settings())
  known, values = _flat(config), _flat(saved)
  for name in values.keys() & _GONE.keys():
    if _GONE[name] in (None, values[name]):
      del values[name]
  for name in sorted(values.keys() - known.keys()):
    raise ValueError(
      f'the saved config.{name} = {values[name]!r} is no setting of this '
      'version: another one wrote it'
    )
  try:
    config.update_from_flattened_dict(values)
  except TypeError as error:
    raise ValueError(f'the saved config: {error}') from error
  # An earlier version let a run keep a single one.
  config.train.keep_checkpoints = max(2, config.train.keep_checkpoints or 2)
  # And it had other methods that add no noise.
  if config.sample.method in {'dpmpp', 'heun'} - {*sampler.METHODS}:
    config.sample.method = 'ddim'
  check(config)
  return config


def check_same_run(
  config: ConfigDict, saved: ConfigDict, workdir: str | pathlib.Path
) -> None:
  """Raises ValueError if settings that are not free differ from the run's."""
  ours, theirs = _identity(config), _identity(saved)
  for name in theirs:
    if ours.get(name) != theirs[name]:
      raise ValueError(
        f'{workdir} holds a run with config.{name} = {theirs[name]}, not '
        f'{ours.get(name)}; use another --workdir, or the same setting to '
        'resume'
      )


def _identity(config):
  """The settings that make a run what it is, by name."""
  values, data = _flat(config), config.data
  # A teacher may have moved, and so may datasets, but not changed their names.
  teacher = 'some' if config.distill.teacher else 'none'
  names = tuple(_dataset_names(data)) if data.source == 'tfds' else ()
  fixed = {'distill.teacher': teacher, 'data.dirs': names}
  for name, setting in flatten_dict(_settings(), sep='.').items():
    # A student learns for the steps that it is sampled with.
    learned = config.distill.teacher and name.startswith('sample.')
    if learned or not setting.free:
      fixed[name] = values[name]
  return fixed


def describe(settings: Settings) -> list[tuple[str, str, str, str]]:
  """Lists all settings as text: rows (name, default, range, meaning)."""
  every = flatten_dict(settings, sep='.').items()
  return [(name, repr(s.default), s.allowed, s.meaning) for name, s in every]


def _flat(config):
  """The values of a config, or of nested dicts, by full name."""
  nested = config.to_dict() if isinstance(config, ConfigDict) else config
  flat = flatten_dict(nested, keep_empty_nodes=True, sep='.')
  as_tuple = lambda value: tuple(value) if isinstance(value, list) else value
  return {name: as_tuple(value) for name, value in flat.items()}


def _settings() -> Settings:
  # configs/base.py imports this file.
  return importlib.import_module('bitseg_jax.configs.base').SETTINGS
