"""Every setting there is, at the paper's values where the paper has one.

The other configs in this folder are small differences to this one.
"""

from ml_collections import ConfigDict


def _data() -> ConfigDict:
  config = ConfigDict()
  # 'tfds': a folder written by bitseg_jax.prepare. 'procedural': no files.
  config.source = 'tfds'
  config.dir = 'datasets/entityseg'
  # Several prepared datasets, instead of dir, and how often each is drawn
  # from: () = equally. They are trained on together and evaluated apart.
  config.dirs = ()
  config.weights = ()
  config.train_split = 'train'
  config.eval_split = 'val'
  config.image_size = 128  # pixels, longest side; padded to a square
  config.augment = 'full'  # 'full', 'flip' or 'none'
  # Random resized crops: area of the part trained on, (least, most), as a
  # share of the photo's; over 1 the photo is seen smaller. (1, 1): off.
  config.crop_scale = (1.0, 1.0)
  # The aspect ratio of that part is multiplied by up to this, or divided.
  config.crop_aspect = 1.0
  config.num_threads = 4  # readers a process
  # Reader processes, started in some 10 s; 0: threads alone. The batches are
  # the same, but a run must resume with as many.
  config.num_workers = 0
  # Of the procedural source only.
  config.num_scenes = 1_000_000
  config.num_eval_scenes = 200
  config.max_entities = 6
  return config


def _codes() -> ConfigDict:
  config = ConfigDict()
  config.encoding = 'analog_bits'  # analog_bits | onehot | rgb
  config.num_codes = 64
  # similar | different | random | range | none
  config.palette = 'similar'
  config.palette_seed = 0  # of the random palette
  config.overflow = 'neighbour'  # neighbour | largest
  return config


def _diffusion() -> ConfigDict:
  config = ConfigDict()
  config.schedule = 'cosine'  # cosine | linear | linear_simple
  config.input_scale = 0.1
  config.pred_type = 'x'  # x | eps | v
  config.tanh = True  # ends x-prediction
  # sigmoid | uniform | SNR | SNR_plus1 | SNR_trunc
  config.loss_weight = 'sigmoid'
  config.loss_bias = -4.0
  config.decoupled = True
  config.loss = 'squared'  # squared | cross_entropy (of bits)
  # Pixels of an entity count as its area to the power of minus this: 0 pixels
  # count alike, 1 entities do.
  config.size_power = 0.0
  config.cond_drop_rate = 0.05
  # The network also sees its own x_hat of the step before (Chen et al. 2023).
  config.self_conditioning = False
  return config


def _model() -> ConfigDict:
  config = ConfigDict()
  config.base_channels = 64
  config.channel_mults = (1, 2, 2, 4, 4)
  config.num_res_blocks = 3
  config.attention_levels = (3, 4)
  config.num_heads = 4
  # Pixels a side for one position of the first level; 2: a quarter the work.
  config.patch_size = 1
  config.dtype = 'float32'  # float32 | bfloat16
  # By cuDNN: NVIDIA GPUs from Ampere on. On CPU and TPU it changes nothing.
  config.fused_attention = False  # needs bfloat16
  # Computes the blocks twice to keep less: for batches that do not fit.
  config.remat = False
  return config


def _train() -> ConfigDict:
  config = ConfigDict()
  config.batch_size = 8  # over all devices
  config.accumulate = 1  # parts of a batch, one after the other
  # Steps a call of the program, for models whose step takes a millisecond or
  # two on a GPU or TPU; divides num_steps and what is done every so many.
  config.steps_per_call = 1
  # Devices that share one copy of parameters and optimizer state (FSDP).
  config.fsdp = 1
  config.num_steps = 300_000
  config.learning_rate = 1e-4
  config.warmup_steps = 1_000
  config.decay_steps = 50_000  # cosine to 0 at the end
  config.beta1 = 0.9
  config.beta2 = 0.999
  config.weight_decay = 0.0
  config.grad_clip = 1.0
  config.ema_decay = 0.9999
  config.log_every = 100
  config.eval_every = 10_000
  config.checkpoint_every = 5_000
  config.keep_checkpoints = 2
  return config


def _sample() -> ConfigDict:
  config = ConfigDict()
  config.num_steps = 8
  config.method = 'ddpm'  # ddpm | ddim | dpmpp
  config.variance = 'large'  # large | small (of ddpm)
  config.guidance_weight = 1.0  # 0: off
  config.guidance_interval = (0.0, 1.0)  # of t
  # Steps go further than the network is told, by so many steps.
  config.time_difference = 0.0
  return config


def _eval() -> ConfigDict:
  config = ConfigDict()
  config.batch_size = 16  # over all devices
  config.num_images = 0  # 0: the whole split
  config.num_samples = 1  # an image
  config.weights = ('ema', 'raw')  # of the parameters
  config.during_training = 64  # images at every eval_every (0: none)
  config.gallery_images = 8
  return config


def get_config() -> ConfigDict:
  """Returns the base config; it names no dataset folder that exists yet."""
  config = ConfigDict()
  config.seed = 0
  # Weights to start from: a workdir of another run ('' = random).
  config.init_from = ''
  config.data = _data()
  config.codes = _codes()
  config.diffusion = _diffusion()
  config.model = _model()
  config.train = _train()
  config.sample = _sample()
  config.eval = _eval()
  return config.lock()
