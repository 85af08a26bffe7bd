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
    'needed, without files. ambiguous: likewise, but annotators disagree',
    choices=('tfds', 'procedural', 'ambiguous'),
  ),
  'dir': Setting(
    'datasets/entityseg', 'folder of the prepared dataset', free=True
  ),
  'dirs': Setting(
    (),
    'several prepared datasets, instead of dir: they are trained on together '
    'and evaluated one by one',
    of=str,
    free=True,
  ),
  'weights': Setting(
    (),
    'how often each of dirs is drawn from, relative to the others; () is '
    'equally often',
    of=float,
    above=0,
    most=1e6,
  ),
  'train_split': Setting('train', 'split to train on'),
  'eval_split': Setting('val', 'split to evaluate on', free=True),
  'image_size': Setting(
    128,
    'longest side of a photo in pixels; photos are padded to a square of it',
    least=4,
    most=2048,
  ),
  'code_size': Setting(
    0,
    'longest side of the id map in pixels, which divides image_size: a photo '
    'may be seen larger than it is divided; 0 is image_size',
    least=0,
    most=2048,
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
    above=0,
    most=16,
    length=2,
  ),
  'crop_aspect': Setting(
    1.0, 'a crop is up to this factor wider or narrower', least=1, most=16
  ),
  'num_threads': Setting(
    4, 'reading threads of each process', least=1, most=1024, free=True
  ),
  'num_workers': Setting(
    0,
    'extra processes that read, for each process; they take some 10 s to '
    'start, and 0 reads in threads alone. The batches do not depend on it',
    least=0,
    most=1024,
    free=True,
  ),
  'num_scenes': Setting(
    1_000_000, 'procedural scenes to train on', least=1, most=_MANY
  ),
  'num_eval_scenes': Setting(
    200, 'procedural scenes held out to evaluate on', least=1, most=_MANY
  ),
  'max_entities': Setting(
    6, 'most entities in a procedural scene', least=1, most=64
  ),
}

CODES = {
  'encoding': Setting(
    'analog_bits', 'channels of a code', choices=codec.ENCODINGS
  ),
  'num_codes': Setting(
    64,
    'entities that a picture can hold; a power of 4 with a palette',
    least=2,
    most=4096,
  ),
  'palette': Setting(
    'similar',
    'order of the codes in the location-aware palette; none: random codes '
    'at every visit',
    choices=(*palette.ORDERS, 'none'),
  ),
  'palette_seed': Setting(
    0, 'seed of the random palette', least=0, most=2**32 - 1
  ),
  'overflow': Setting(
    'neighbour',
    'where entities outnumber codes, the smallest join the neighbour with '
    'the longest common border, or the largest entity, as the official code',
    choices=palette.OVERFLOWS,
  ),
}

DIFFUSION = {
  'schedule': Setting('cosine', 'noise schedule', choices=schedule.SCHEDULES),
  'input_scale': Setting(
    0.1, 'scale b of the data against the noise', above=0, most=1000
  ),
  'pred_type': Setting(
    'x', 'what the network predicts', choices=diffusion.PRED_TYPES
  ),
  'tanh': Setting(True, 'end x-prediction in tanh'),
  'loss_weight': Setting(
    'sigmoid', 'weight of the loss over time', choices=schedule.LOSS_WEIGHTS
  ),
  'loss_bias': Setting(
    -4.0, 'shift of the sigmoid weight along logsnr', least=-40, most=40
  ),
  'decoupled': Setting(True, 'multiply the weight by -dlogsnr/dt'),
  'cond_drop_rate': Setting(
    0.05, 'share of samples without their photo, for guidance', least=0, most=1
  ),
}

MODEL = {
  'name': Setting('unet', 'the network', choices=tuple(models.MODELS)),
  'base_channels': Setting(
    64, 'channels of the first level', least=2, most=4096
  ),
  'channel_mults': Setting(
    (1, 2, 2, 4, 4),
    'width of each level, as a multiple of base_channels',
    of=int,
    least=1,
    most=64,
  ),
  'num_res_blocks': Setting(
    3, 'residual blocks in each level on the way down', least=1, most=64
  ),
  'attention_levels': Setting(
    (3, 4), 'levels with attention; 0 is the finest', of=int, least=0, most=16
  ),
  'num_heads': Setting(4, 'attention heads', least=1, most=1024),
  'patch_size': Setting(
    1,
    'side of the squares of pixels that the network sees as one position',
    least=1,
    most=64,
  ),
  'encoder': Setting(
    'none',
    'EfficientNet-Lite with ImageNet weights, which encodes each photo once '
    'for the network',
    choices=('none', *encoder.WIDTH_AND_DEPTH),
  ),
  'encoder_width': Setting(
    128, "channels of the encoder's features", least=1, most=4096
  ),
  'encoder_rate': Setting(
    0.0,
    "learning rate of the encoder's ImageNet weights, as a share of that of "
    'all others; 0 leaves them as they are',
    least=0,
    most=1,
  ),
  'dtype': Setting(
    'float32',
    'number format of activations; parameters are always float32',
    choices=('float32', 'bfloat16'),
  ),
  'fused_attention': Setting(
    False,
    "cuDNN's attention kernel, on NVIDIA GPUs from Ampere on, in bfloat16",
    free=True,
  ),
  'remat': Setting(
    False, 'compute blocks twice, to keep less in memory', free=True
  ),
}

TRAIN = {
  'batch_size': Setting(
    8, 'images in a batch, over all devices', least=1, most=1_000_000
  ),
  'draws': Setting(
    1,
    'how often each image of a batch is used, with other times and noise; it '
    'is encoded once',
    least=1,
    most=1024,
  ),
  'accumulate': Setting(
    1,
    'parts that a batch is computed in, to save memory',
    least=1,
    most=1024,
    free=True,
  ),
  'steps_per_call': Setting(
    1,
    'how many steps one call of the compiled program takes, for models whose '
    'step takes a millisecond or two; it divides num_steps and every interval '
    'in steps',
    least=1,
    most=10_000,
    free=True,
  ),
  'fsdp': Setting(
    1,
    'devices that share one copy of parameters and optimizer state',
    least=1,
    most=65_536,
    free=True,
  ),
  'num_steps': Setting(
    300_000, 'steps of the whole training', least=1, most=_MANY, free=True
  ),
  'optimizer': Setting(
    'adamw', 'muon learns more in few steps', choices=train_state.OPTIMIZERS
  ),
  'learning_rate': Setting(
    1e-4, 'learning rate after the warm-up', least=0, most=10
  ),
  'warmup_steps': Setting(
    1_000, 'steps of linear warm-up', least=0, most=_MANY
  ),
  'decay_steps': Setting(
    50_000,
    'steps of cosine decay to 0, the last ones',
    least=0,
    most=_MANY,
    free=True,
  ),
  'beta1': Setting(
    0.9, "decay of AdamW's mean of gradients", least=0, most=0.99999999
  ),
  'beta2': Setting(
    0.999, "decay of AdamW's mean of squares", least=0, most=0.99999999
  ),
  'weight_decay': Setting(0.0, 'weight decay of AdamW', least=0, most=10),
  'grad_clip': Setting(1.0, 'largest norm of the gradient', above=0, most=1e9),
  'ema_decay': Setting(
    0.9999, 'decay of the average of the parameters', least=0, most=1
  ),
  'log_every': Setting(
    100, 'steps from one log line to the next', least=1, most=_MANY, free=True
  ),
  'eval_every': Setting(
    10_000,
    'steps from one evaluation to the next',
    least=1,
    most=_MANY,
    free=True,
  ),
  'checkpoint_every': Setting(
    5_000,
    'steps from one checkpoint to the next',
    least=1,
    most=_MANY,
    free=True,
  ),
  'checkpoint_minutes': Setting(
    15.0,
    'save also at the first log_every after so many minutes without a '
    'checkpoint; 0 is off',
    least=0,
    most=1e6,
    free=True,
  ),
  'keep_checkpoints': Setting(
    2,
    'checkpoints kept; the newest may be unfinished',
    least=2,
    most=10_000,
    free=True,
  ),
}

SAMPLE = {
  'num_steps': Setting(
    8, 'steps from noise to codes', least=1, most=100_000, free=True
  ),
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
    1.0, 'classifier-free guidance; 0 is off', least=-100, most=100, free=True
  ),
}

EVAL = {
  'batch_size': Setting(
    16,
    'images in a batch, over all devices',
    least=1,
    most=1_000_000,
    free=True,
  ),
  'num_images': Setting(
    0,
    'images of each dataset; 0 is the whole split',
    least=0,
    most=_MANY,
    free=True,
  ),
  'num_samples': Setting(
    1, 'samples of each image', least=1, most=1024, free=True
  ),
  'weights': Setting(
    ('ema', 'raw'),
    'which weights to evaluate: the average, or those of the last step',
    of=str,
    choices=('ema', 'raw'),
    free=True,
  ),
  'during_training': Setting(
    64,
    'images to evaluate at each eval_every; 0 is none',
    least=0,
    most=_MANY,
    free=True,
  ),
  'gallery_images': Setting(
    8, 'images in the gallery', least=0, most=1000, free=True
  ),
}

DISTILL = {
  'teacher': Setting(
    '',
    'a run or a pretrained model, whose samples this one learns to draw in '
    "sample.num_steps evaluations; '' is none",
    free=True,
  ),
  'teacher_steps': Setting(
    0, "the teacher's steps; 0 is those of its config", least=0, most=100_000
  ),
}

SETTINGS = {
  'seed': Setting(
    0, 'seed of weights, data, noise and evaluation', least=0, most=2**32 - 1
  ),
  'init_from': Setting(
    '',
    'workdir of another run, or a pretrained model, whose weights to start '
    "from; '' is none",
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
