"""Every setting there is, at the paper's values where the paper has one.

The other configs in this folder are small differences to this one.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """Returns the base config; it names no dataset folder that exists yet."""
  config = ConfigDict()
  config.seed = 0
  # Weights to start from: a workdir of another run ('' = random).
  config.init_from = ''

  config.data = ConfigDict()
  # 'tfds': a folder written by bitseg_jax.prepare. 'procedural': no files.
  config.data.source = 'tfds'
  config.data.dir = 'datasets/entityseg'
  # Several prepared datasets, instead of dir, and how often each is drawn
  # from: () = equally. They are trained on together and evaluated apart.
  config.data.dirs = ()
  config.data.weights = ()
  config.data.train_split = 'train'
  config.data.eval_split = 'val'
  config.data.image_size = 128  # pixels, longest side; padded to a square
  config.data.augment = 'full'  # 'full', 'flip' or 'none'
  # Random resized crops: area of the part trained on, (least, most), as a
  # share of the photo's; over 1 the photo is seen smaller. (1, 1): off.
  config.data.crop_scale = (1.0, 1.0)
  # The aspect ratio of that part is multiplied by up to this, or divided.
  config.data.crop_aspect = 1.0
  config.data.num_threads = 4  # readers a process
  # Reader processes, started in some 10 s; 0: threads alone. The batches are
  # the same, but a run must resume with as many.
  config.data.num_workers = 0
  # Of the procedural source only.
  config.data.num_scenes = 1_000_000
  config.data.num_eval_scenes = 200
  config.data.max_entities = 6

  config.codes = ConfigDict()
  config.codes.encoding = 'analog_bits'  # analog_bits | onehot | rgb
  config.codes.num_codes = 64
  # similar | different | random | range | none
  config.codes.palette = 'similar'
  config.codes.palette_seed = 0  # of the random palette
  config.codes.overflow = 'neighbour'  # neighbour | largest

  config.diffusion = ConfigDict()
  config.diffusion.schedule = 'cosine'  # cosine | linear | linear_simple
  config.diffusion.input_scale = 0.1
  config.diffusion.pred_type = 'x'  # x | eps | v
  config.diffusion.tanh = True  # ends x-prediction
  # sigmoid | uniform | SNR | SNR_plus1 | SNR_trunc
  config.diffusion.loss_weight = 'sigmoid'
  config.diffusion.loss_bias = -4.0
  config.diffusion.decoupled = True
  config.diffusion.loss = 'squared'  # squared | cross_entropy (of bits)
  # Pixels of an entity count as its area to the power of minus this: 0 pixels
  # count alike, 1 entities do.
  config.diffusion.size_power = 0.0
  config.diffusion.cond_drop_rate = 0.05
  # The network also sees its own x_hat of the step before (Chen et al. 2023).
  config.diffusion.self_conditioning = False

  config.model = ConfigDict()
  config.model.base_channels = 64
  config.model.channel_mults = (1, 2, 2, 4, 4)
  config.model.num_res_blocks = 3
  config.model.attention_levels = (3, 4)
  config.model.num_heads = 4
  # Pixels a side for one position of the first level; 2: a quarter the work.
  config.model.patch_size = 1
  config.model.dtype = 'float32'  # float32 | bfloat16
  # By cuDNN: NVIDIA GPUs from Ampere on. On CPU and TPU it changes nothing.
  config.model.fused_attention = False  # needs bfloat16
  # Computes the blocks twice to keep less: for batches that do not fit.
  config.model.remat = False

  config.train = ConfigDict()
  config.train.batch_size = 8  # over all devices
  config.train.accumulate = 1  # parts of a batch, one after the other
  # Steps a call of the program, for models whose step takes a millisecond or
  # two on a GPU or TPU; divides num_steps and what is done every so many.
  config.train.steps_per_call = 1
  # Devices that share one copy of parameters and optimizer state (FSDP).
  config.train.fsdp = 1
  config.train.num_steps = 300_000
  config.train.learning_rate = 1e-4
  config.train.warmup_steps = 1_000
  config.train.decay_steps = 50_000  # cosine to 0 at the end
  config.train.beta1 = 0.9
  config.train.beta2 = 0.999
  config.train.weight_decay = 0.0
  config.train.grad_clip = 1.0
  config.train.ema_decay = 0.9999
  config.train.log_every = 100
  config.train.eval_every = 10_000
  config.train.checkpoint_every = 5_000
  config.train.keep_checkpoints = 2

  config.sample = ConfigDict()
  config.sample.num_steps = 8
  config.sample.method = 'ddpm'  # ddpm | ddim | dpmpp
  config.sample.variance = 'large'  # large | small (of ddpm)
  config.sample.guidance_weight = 1.0  # 0: off
  config.sample.guidance_interval = (0.0, 1.0)  # of t
  # Steps go further than the network is told, by so many steps.
  config.sample.time_difference = 0.0

  config.eval = ConfigDict()
  config.eval.batch_size = 16  # over all devices
  config.eval.num_images = 0  # 0: the whole split
  config.eval.num_samples = 1  # an image
  config.eval.weights = ('ema', 'raw')  # of the parameters
  config.eval.during_training = 64  # images at every eval_every (0: none)
  config.eval.gallery_images = 8
  return config.lock()
