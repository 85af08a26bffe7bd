"""The base config: every setting once, with its default, range and meaning.

Defaults are the paper's values if it gives any. The other configs in this
folder change a few settings. Any setting can also be given on the command line:
--config.train.batch_size=16.
"""

from ml_collections import ConfigDict

from bitseg_jax import codec, diffusion, models, palette, sampler, schedule
from bitseg_jax.data import transforms
from bitseg_jax.models import encoder
from bitseg_jax.runs import train_state
from bitseg_jax.runs.schema import Setting, to_config

# Upper bound that keeps a typing error from filling the memory.
_MANY = 1_000_000_000

DATA = {
  'source': Setting(
    'tfds',
    'tfds: folders written by prepare. procedural: scenes drawn as they are '
    'needed. ambiguous: likewise, but annotators disagree',
    choices=('tfds', 'procedural', 'ambiguous'),
  ),
  'dir': Setting(
    'datasets/entityseg', 'folder of the prepared dataset', free=True
  ),
  'dirs': Setting(
    (),
    'several datasets, trained on together and evaluated one by one',
    of=str,
    free=True,
  ),
  'weights': Setting(
    (),
    'how often each of dirs is drawn from; () is equally often',
    of=float,
    least=1e-6,
    most=1e6,
  ),
  'train_split': Setting('train', 'split to train on'),
  'eval_split': Setting('val', 'split to evaluate on', free=True),
  'image_size': Setting(
    128, 'longest side of a photo in pixels, padded to a square', 4, 2048
  ),
  'code_size': Setting(
    0,
    'longest side of the id map in pixels, which divides image_size; 0 is '
    'image_size',
    0,
    2048,
  ),
  'augment': Setting(
    'full',
    'full is as in the paper, flip is flips alone',
    choices=transforms.AUGMENTATIONS,
  ),
  'crop_scale': Setting(
    (1.0, 1.0),
    'random resized crops: least and most area of the part trained on, as a '
    "share of the photo's; over 1 the photo is seen smaller; (1, 1) is off",
    of=float,
    least=1e-6,
    most=16,
    length=2,
  ),
  'crop_aspect': Setting(
    1.0, 'a crop is up to this factor wider or narrower', 1, 16
  ),
  'num_threads': Setting(
    4, 'reading threads of each process', 1, 1024, free=True
  ),
  'num_workers': Setting(
    0,
    'reading processes of each process, which take some 10 s to start; 0 '
    'reads in threads alone, the same batches',
    0,
    1024,
    free=True,
  ),
  'num_scenes': Setting(1_000_000, 'drawn scenes to train on', 1, _MANY),
  'num_eval_scenes': Setting(
    200, 'drawn scenes held out to evaluate on', 1, _MANY
  ),
  'max_entities': Setting(6, 'most entities in a drawn scene', 1, 64),
}

CODES = {
  'encoding': Setting(
    'analog_bits', 'channels of a code', choices=tuple(codec.ENCODINGS)
  ),
  'num_codes': Setting(
    64, 'most entities in a picture; a power of 4 with a palette', 2, 4096
  ),
  'palette': Setting(
    'similar',
    'order of the location-aware codes; none: random ones at every visit',
    choices=(*palette.ORDERS, 'none'),
  ),
  'palette_seed': Setting(0, 'seed of the random palette', 0, 2**32 - 1),
  'overflow': Setting(
    'neighbour',
    'where entities outnumber codes, the smallest join the neighbour with the '
    'longest common border, or the largest entity, as in the official code',
    choices=palette.OVERFLOWS,
  ),
}

DIFFUSION = {
  'schedule': Setting('cosine', 'noise schedule', choices=schedule.SCHEDULES),
  'input_scale': Setting(
    0.1, 'scale b of the data against the noise', 1e-6, 1000
  ),
  'pred_type': Setting(
    'x', 'what the network predicts', choices=diffusion.PRED_TYPES
  ),
  'tanh': Setting(True, 'end x-prediction in tanh'),
  'loss_weight': Setting(
    'sigmoid',
    'weight of the loss over time',
    choices=tuple(schedule.LOSS_WEIGHTS),
  ),
  'loss_bias': Setting(
    -4.0, 'shift of the sigmoid weight along logsnr', -40, 40
  ),
  'decoupled': Setting(
    True,
    'multiply the weight by -dlogsnr/dt; the paper does so for sigmoid alone',
  ),
  'cond_drop_rate': Setting(
    0.05, 'share of rows without their photo, for guidance', 0, 1
  ),
}

MODEL = {
  'name': Setting('unet', 'the network', choices=tuple(models.MODELS)),
  'base_channels': Setting(64, 'channels of the first level', 2, 4096),
  'channel_mults': Setting(
    (1, 2, 2, 4, 4),
    'width of each level, as a multiple of base_channels',
    of=int,
    least=1,
    most=64,
  ),
  'num_res_blocks': Setting(
    3, 'residual blocks in each level on the way down', 1, 64
  ),
  'attention_levels': Setting(
    (3, 4), 'levels with attention; 0 is the finest', of=int, least=0, most=16
  ),
  'num_heads': Setting(4, 'attention heads', 1, 1024),
  'patch_size': Setting(
    1, 'side of the squares of pixels that are one position', 1, 64
  ),
  'encoder': Setting(
    'none',
    'EfficientNet-Lite of ImageNet, which encodes each photo once',
    choices=('none', *encoder.VARIANTS),
  ),
  'encoder_width': Setting(128, "channels of the encoder's features", 1, 4096),
  'encoder_rate': Setting(
    0.0,
    "learning rate of the encoder's weights from stride 16 on, but for "
    "depthwise kernels, as a share of the others'; 0 leaves all as they are",
    0,
    1,
  ),
  'dtype': Setting(
    'float32',
    'format of activations; parameters are always float32',
    choices=('float32', 'bfloat16'),
  ),
}

TRAIN = {
  'batch_size': Setting(8, 'images in a batch, over all devices', 1, 1_000_000),
  'draws': Setting(
    1, 'uses of each image of a batch, with other times and noise', 1, 1024
  ),
  'accumulate': Setting(
    1, 'parts that a batch is computed in, to save memory', 1, 1024, free=True
  ),
  'fsdp': Setting(
    1, 'devices that share one copy of the training state', 1, 65_536, free=True
  ),
  'num_steps': Setting(
    300_000, 'steps of the whole training', 1, _MANY, free=True
  ),
  'optimizer': Setting(
    'adamw', 'muon learns more in few steps', choices=train_state.OPTIMIZERS
  ),
  'learning_rate': Setting(1e-4, 'learning rate after the warm-up', 0, 10),
  'warmup_steps': Setting(1_000, 'steps of linear warm-up', 0, _MANY),
  'decay_steps': Setting(
    50_000, 'steps of cosine decay to 0, the last ones', 0, _MANY, free=True
  ),
  'beta1': Setting(0.9, "decay of AdamW's mean of gradients", 0, 0.99999999),
  'beta2': Setting(0.999, "decay of AdamW's mean of squares", 0, 0.99999999),
  'weight_decay': Setting(0.0, 'weight decay of AdamW', 0, 10),
  'grad_clip': Setting(1.0, 'largest norm of the gradient', 1e-6, 1e9),
  'ema_decay': Setting(0.9999, 'decay of the average of the parameters', 0, 1),
  'log_every': Setting(
    100, 'steps from one log line to the next', 1, _MANY, free=True
  ),
  'eval_every': Setting(
    10_000, 'steps from one evaluation to the next', 1, _MANY, free=True
  ),
  'checkpoint_every': Setting(
    5_000, 'steps from one checkpoint to the next', 1, _MANY, free=True
  ),
  'checkpoint_minutes': Setting(
    15.0,
    'save also after so many minutes without a checkpoint; 0 is off',
    0,
    1e6,
    free=True,
  ),
  'keep_checkpoints': Setting(
    2, 'checkpoints kept; the newest may be unfinished', 2, 10_000, free=True
  ),
}

SAMPLE = {
  'num_steps': Setting(8, 'steps from noise to codes', 1, 100_000, free=True),
  'method': Setting(
    'ddpm', 'how a step is taken', choices=tuple(sampler.METHODS), free=True
  ),
  'variance': Setting(
    'large',
    'variance of the noise that ddpm adds',
    choices=sampler.VARIANCES,
    free=True,
  ),
  'guidance_weight': Setting(
    1.0, 'classifier-free guidance; 0 is off', -100, 100, free=True
  ),
}

EVAL = {
  'batch_size': Setting(
    16, 'samples drawn at once, over all devices', 1, 1_000_000, free=True
  ),
  'num_images': Setting(
    0, 'images of each dataset; 0 is the whole split', 0, _MANY, free=True
  ),
  'num_samples': Setting(1, 'samples of each image', 1, 1024, free=True),
  'weights': Setting(
    ('ema', 'raw'),
    'weights to evaluate: the average, those of the last step',
    of=str,
    choices=('ema', 'raw'),
    free=True,
  ),
  'during_training': Setting(
    64, 'images to evaluate at each eval_every; 0 is none', 0, _MANY, free=True
  ),
  'gallery_images': Setting(8, 'images in the gallery', 0, 1000, free=True),
}

DISTILL = {
  'teacher': Setting(
    '',
    'a run or a pretrained model, whose samples this one learns to draw in '
    "sample.num_steps evaluations; '' is none",
    free=True,
  ),
  'teacher_steps': Setting(
    0, "the teacher's steps; 0 is those of its config", 0, 100_000
  ),
}

SETTINGS = {
  'seed': Setting(
    0, 'seed of weights, data, noise and evaluation', 0, 2**32 - 1
  ),
  'init_from': Setting(
    '',
    "run or pretrained model whose weights to start from; '' is none",
    free=True,
  ),
  'data': DATA,
  'codes': CODES,
  'diffusion': DIFFUSION,
  'model': MODEL,
  'train': TRAIN,
  'sample': SAMPLE,
  'eval': EVAL,
  'distill': DISTILL,
}


def get_config() -> ConfigDict:
  """Returns the config of all defaults, the paper's main model."""
  return to_config(SETTINGS)
