"""The odd inputs of odd_inputs.py: each is one thing made wrong.

A maker gets an empty folder and a source of chance; it returns what is wrong,
the command that gets it, and whether the command must fail.
"""

import io
import json
import os
import pathlib
import random
import shutil
from collections.abc import Callable

import numpy as np
import tifffile
from PIL import Image

from bitseg_jax.configs import base
from bitseg_jax.data import rle
from bitseg_jax.runs import schema

NAMES = 'a', 'b', 'c'
IDS = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((8, 8))).astype(np.uint8)
Case = tuple[str, list[str], bool]  # what, command, whether it must fail


def png(pixels: np.ndarray, kind: str = 'PNG', **options) -> bytes:
  """An image file."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind, **options)
  return buffer.getvalue()


def make_folder(root: pathlib.Path) -> None:
  """Three photos with ids, one of them for validation."""
  rng = np.random.default_rng(0)
  for name in NAMES:
    photo = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    for kind, data in ('images', png(photo)), ('labels', png(IDS)):
      (root / kind).mkdir(parents=True, exist_ok=True)
      (root / kind / f'{name}.png').write_bytes(data)
  (root / 'train.txt').write_text('a\nb\n')
  (root / 'val.txt').write_text('c\n')


def spoil(path: pathlib.Path, rng: random.Random) -> str:
  """Makes a file of an image wrong in one way; returns how."""
  good = path.read_bytes()
  path.unlink()
  ways: dict[str, Callable[[], object]] = {
    'empty': path.touch,
    'cut off': lambda: path.write_bytes(good[: rng.randrange(1, 60)]),
    'random bytes': lambda: path.write_bytes(rng.randbytes(200)),
    'text': lambda: path.write_text('not an image'),
    'another size': lambda: path.write_bytes(png(IDS[:5, :7])),
    'floats': lambda: path.write_bytes(png(IDS.astype(np.float32), 'TIFF')),
    'folder': path.mkdir,
    'pipe': lambda: os.mkfifo(path),
    'loop': lambda: path.symlink_to(path.name),
    'nowhere': lambda: path.symlink_to('/nowhere/at/all'),
    'device': lambda: path.symlink_to('/dev/zero'),
    'huge': lambda: path.write_bytes(
      good[:16] + (10**6).to_bytes(4, 'big') * 2 + good[24:]
    ),
  }
  way = rng.choice(sorted(ways))
  ways[way]()
  return way


def odd(rng: random.Random) -> object:
  """A value that hardly anything expects."""
  deep = []
  for _ in range(50):
    deep = [deep]
  return rng.choice(
    [
      *(None, [], {}, -1, 0, 1.5, 2**70, 'x', '', True, 1e400, '../../x', deep),
      *(float('nan'), {'id': {}}, [[]], '\x00', 'ü' * 400),
    ]
  )


def odd_dataset(root: pathlib.Path, rng: random.Random) -> Case:
  """One file of a folder to prepare is wrong."""
  make_folder(root / 'in')
  kind, name = rng.choice(['images', 'labels']), rng.choice(NAMES)
  path = root / f'in/{kind}/{name}.png'
  suffix = rng.choice(['.png', '.tif', '.npy' if kind == 'labels' else '.gif'])
  if suffix != '.png':
    pixels = np.asarray(Image.open(path))
    path.unlink()
    path = path.with_suffix(suffix)
    if suffix == '.npy':
      np.save(path, pixels)
    elif suffix == '.gif':
      path.write_bytes(png(pixels, 'GIF'))
    else:
      tifffile.imwrite(path, pixels.astype(rng.choice('BHhIifd')))
  how = spoil(path, rng)
  command = ['prepare', '--dataset=folder', f'--source={root}/in', '--strict']
  # Floats are stretched, and ids where they are whole.
  must_fail = how != 'floats' or suffix == '.npy'
  if how == 'huge' and suffix != '.png':
    must_fail = False  # it makes PNG huge, and may leave others as they are
  what = f'{kind}: {suffix}, {how}'
  return what, [*command, f'--output={root}/out'], must_fail


def odd_json(root: pathlib.Path, rng: random.Random) -> Case:
  """One value of a JSON of annotations is odd; some may be harmless."""
  make_folder(root / 'in')
  kind = rng.choice(['coco_panoptic', 'coco_instances', 'folder'])
  square = [1, 1, 9, 1, 9, 9, 1, 9]
  masks = [
    [square],
    rle.encode(IDS - 1)[0],
    {'size': [16, 16], 'counts': [256]},
  ]
  sized = {'height': 16, 'width': 16}
  images = [
    {'id': i, 'file_name': f'{name}.png', **sized}
    for i, name in enumerate(NAMES)
  ]
  path = root / 'in/panoptic_val.json'
  if kind == 'coco_panoptic':
    (root / 'in/labels').rename(root / 'in/panoptic_val')
    segments = [{'id': k, 'iscrowd': 0} for k in range(1, 5)]
    annotations = [
      {'image_id': i, 'file_name': f'{name}.png', 'segments_info': segments}
      for i, name in enumerate(NAMES)
    ]
    content = {'images': images, 'annotations': annotations}
  elif kind == 'coco_instances':
    annotations = [
      {'id': 3 * i + k, 'image_id': i, 'iscrowd': 0, 'segmentation': mask}
      for i in range(len(NAMES))
      for k, mask in enumerate(masks)
    ]
    content = {'images': images, 'annotations': annotations}
  else:
    path = root / 'in/labels/a.json'
    path.with_suffix('.png').unlink()
    corners = [[1.5, 1], [9, 1], [9, 9]]
    shapes = [
      {'label': 'x', 'points': corners, 'group_id': None, 'shape_type': shape}
      for shape in ('polygon', 'rectangle', 'circle', 'line')
    ]
    shapes[1]['points'] = shapes[2]['points'] = corners[:2]
    content = {'shapes': shapes, 'imageHeight': 16, 'imageWidth': 16}
  content = json.loads(json.dumps(content))  # nothing is there twice
  node, key, names = {'': content}, '', []
  while isinstance(node[key], dict | list) and (
    not names or rng.random() < 0.8
  ):
    node = node[key]
    key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
    names.append(str(key))
  node[key] = odd(rng)
  path.write_text(json.dumps(content))
  command = ['prepare', f'--dataset={kind}', f'--source={root}/in']
  what = f'{kind}: {".".join(names)} = {node[key]!r:.30}'
  return what, [*command, '--strict', f'--output={root}/out'], False


def odd_prediction(
  root: pathlib.Path, rng: random.Random, prepared: pathlib.Path
) -> Case:
  """One prediction to score is wrong."""
  (root / 'p').mkdir()
  masks = [{'segmentation': r, 'score': 0.5} for r in rle.encode(IDS - 1)]
  kind = rng.choice(['png', 'npy', 'json', 'masks'])
  path = root / f'p/c.{kind.replace("masks", "json")}'
  if kind == 'png':
    path.write_bytes(png(IDS))
    how = spoil(path, rng)
  elif kind == 'npy':
    np.save(path, IDS.astype(np.int64))
    data = bytearray(path.read_bytes())
    how = rng.choice(['cut off', 'header', 'floats', 'objects', 'huge ids'])
    if how == 'cut off':
      path.write_bytes(data[: rng.randrange(len(data) - 8)])
    elif how == 'header':
      path.write_bytes(data.replace(b'(16, 16)', b'(99999999,9)'))
    elif how == 'huge ids':
      np.save(path, IDS.astype(np.int64) * 2**40)
    else:
      np.save(path, IDS.astype(object if how == 'objects' else float) / 2)
  elif kind == 'json':
    value = odd(rng)
    path.write_text(json.dumps(value if value != [] else None))
    how = f'{value!r:.30}'
  else:
    one = masks[rng.randrange(len(masks))]
    value = odd(rng)
    while isinstance(value, int | float) and abs(value) < 10:
      value = odd(rng)  # a score like any other
    where, key = rng.choice(
      [
        *((one, 'score'), (one, 'segmentation')),
        *((one['segmentation'], 'counts'), (one['segmentation'], 'size')),
      ]
    )
    where[key] = value
    path.write_text(json.dumps(masks))
    how = f'{key} = {value!r:.30}'
  command = ['score', f'--data={prepared}', '--split=val']
  must_fail = (kind, how) != ('png', 'floats')  # whole ones are read
  return f'{kind}: {how}', [*command, f'--predictions={root}/p'], must_fail


def predict_with(root: pathlib.Path, model: pathlib.Path, kind: str) -> list:
  """The command that segments one photo with what a place says of it."""
  make_folder(root / 'in')
  return [
    *('predict', f'--checkpoint={model}', f'--input={root}/in/images/a.png'),
    *(f'--output={root}/out', f'--{kind}={root}/given', '--num_steps=1'),
  ]


def odd_mark(
  root: pathlib.Path, rng: random.Random, model: pathlib.Path
) -> Case:
  """One value of the marks on a photo is odd."""
  kind = rng.choice(['known', 'known', 'start'])
  command = predict_with(root, model, kind)
  path = root / 'given'
  marks = [
    {'id': 1, 'points': [[2, 3], [9.5, 3]]},
    {'id': 2, 'polygon': [[1, 9], [8, 9], [4, 14]]},
    {'id': 3, 'box': [10, 9, 15, 15]},
  ]
  content = {'a': marks}
  way = rng.choice(['value', 'value', 'value', 'far', 'both', 'name', 'cut'])
  if way == 'far':
    where = rng.choice([-0.1, 16, 1e30, float('inf'), 2**70]), 1
    marks[0]['points'][0] = marks[1]['polygon'][0] = where
  elif way == 'both':
    marks.append({'id': 4, 'points': [[2, 3]]})
  elif way == 'name':
    content = {rng.choice(['b', '', '../a', 'A']): marks}
  elif way == 'value':
    node, key = content, 'a'
    while isinstance(node[key], dict | list) and rng.random() < 0.8:
      node = node[key]
      key = rng.choice(
        list(node) if isinstance(node, dict) else range(len(node))
      )
    value = odd(rng)
    # What could be meant: no marks at all, and numbers like any other.
    while value == [] or (isinstance(value, int | float) and 0 <= value < 16):
      value = odd(rng)
    node[key] = value
    way = f'{key} = {value!r:.30}'
  text = json.dumps(content)
  path.write_text(text[: rng.randrange(len(text))] if way == 'cut' else text)
  return f'marks, {kind}: {way}', command, True


def odd_given(
  root: pathlib.Path, rng: random.Random, model: pathlib.Path
) -> Case:
  """The labels given for a photo are wrong, or what is given is no place."""
  kind = rng.choice(['known', 'start'])
  command = predict_with(root, model, kind)
  path = root / 'given/a.png'
  path.parent.mkdir()
  path.write_bytes(png(IDS))
  ways = 'spoil', 'spoil', 'alpha', 'empty folder', 'file', 'pipe', 'none'
  way = rng.choice(ways)
  if way == 'spoil':
    way = spoil(path, rng)
  elif way == 'alpha':  # grey and how transparent it is
    path.write_bytes(png(np.stack([IDS] * 2, axis=-1)))
  else:
    shutil.rmtree(path.parent)
    if way == 'empty folder':
      path.parent.mkdir()
    elif way == 'file':
      path.parent.write_bytes(png(IDS))
    elif way == 'pipe':
      os.mkfifo(path.parent)
  return f'labels, {kind}: {way}', command, way != 'floats'


def odd_setting(root: pathlib.Path, rng: random.Random) -> Case:
  """A setting out of its range, of another type, or unknown."""
  names = [row[0] for row in schema.describe(base.SETTINGS) if row[2]]
  name = rng.choice(names)
  numbers = 'nan', 'inf', '-1e30', '1e30', str(-(10**18))
  values = [*numbers, "'x'", '(-1e9,)', 'None', '"']
  value = rng.choice(values)
  flag = rng.choice([f'--config.{name}={value}', f'--config.{name}x=1'])
  command = ['train', '--config=quickstart', f'--workdir={root}/run']
  return f'setting {flag}', [*command, flag], True


def odd_flag(root: pathlib.Path, rng: random.Random) -> Case:
  """A flag that cannot be meant."""
  flag = rng.choice([*_of_data(root), *_of_models(root)])
  return f'flags {" ".join(flag[:4])}', flag, True


def _of_data(root):
  """Flags of the commands that read photos and datasets."""
  return [
    ['predict', '--input=', '--output=x'],
    ['predict', '--input=/nowhere', '--output=x'],
    ['predict', f'--input={root}', f'--output={root}'],
    ['predict', '--input=x', '--output=x', '--num_samples=1000000000'],
    ['predict', '--input=x', '--output=x', '--guidance_weight=1e30'],
    ['predict', '--input=x', '--output=x', '--seed=99999999999'],
    ['predict', '--input=x', '--output=x', '--shard=4/4'],
    ['predict', '--input=x', '--output=x', '--shard=a/b'],
    ['prepare', '--dataset=folder', f'--source={root}', '--output=x'],
    ['prepare', '--dataset=folder', '--source=', '--output='],
    ['prepare', '--dataset=none', '--source=x', '--output=x'],
    *(
      ['prepare', '--dataset=folder', '--source=x', '--output=x', flag]
      for flag in ('--ignore=x', '--ignore=-1', '--page=-1', '--exif=none')
    ),
    ['prepare', '--describe', f'--output={root}'],
    ['score', '--data=x', '--split=val', '--predictions=x'],
    ['score', '--data=x', '--split=val', '--predictions=x', '--ignore=x'],
    ['sweep', '--sweep='],
    ['sweep', '--sweep=none'],
    ['sweep', '--sweep=table3', '--seeds=a'],
    ['sweep', '--sweep=table3', '--size=none'],
  ]


def _of_models(root):
  """Flags of the commands that train, time and show a model."""
  here = __file__
  student = 'train', '--config=quickstart', f'--workdir={root}/r'
  return [
    ['benchmark', '--what='],
    ['benchmark', '--what=none'],
    ['benchmark', '--topology=v9:2x2'],
    ['benchmark', '--topology=v5e'],
    ['benchmark', '--topology=v5e:-1x2', '--what=train'],
    ['benchmark', '--topology=v5e:2x2', '--what=input'],
    ['clicks', '--data=/nowhere', '--split=val', f'--output={root}/x'],
    ['clicks', f'--data={root}', '--split=val', f'--output={root}/x'],
    ['clicks', '--data=x', '--split=val', '--output=x', '--seed=x'],
    ['clicks', '--data=x', '--split=val', '--output=x', '--most=0'],
    ['clicks', '--data=x', '--split=val', '--output=x', '--every=-1'],
    ['predict', '--input=x', '--output=x', '--strength=nan'],
    ['predict', '--input=x', '--output=x', '--strength=2'],
    ['predict', f'--input={here}', '--output=x', '--strength=0.9'],
    [
      'predict',
      f'--input={base.__file__}',
      '--output=x',
      '--known=/dev/zero',
    ],
    ['predict', '--input=x', '--output=x', '--guidance_weight=nan'],
    [*student, '--config.distill.teacher=/nowhere'],
    [*student, f'--config.distill.teacher={root}'],
    [*student, '--config.distill.teacher_steps=-4'],
    [*student, '--config.distill.teacher=x', '--config.sample.num_steps=0'],
    ['baselines', '--data=x', '--split=val'],
    ['convert', '--input=/nowhere', f'--output={root}/x'],
    ['demo', '--checkpoint=/nowhere'],
    ['train', '--config=nowhere', f'--workdir={root}/r'],
    ['train', f'--config={root}', f'--workdir={root}/r'],
    ['train', '--config=quickstart', f'--workdir={root}/r', '--mode=eval'],
    ['train', '--config=quickstart', f'--workdir={root}/r', 'word'],
    ['train', '--config=quickstart', f'--workdir={root}/r', '--unknown=1'],
  ]
