"""Times what one would use instead of `bitseg predict`, as whole processes.

  pip install torch==2.13.0 torchvision==0.28.0 segment-anything
  python benchmarks/beside.py --photos=DIR

SAM's automatic mask generator is that of segment-anything with ViT-B and its
own settings. Its weights are random here, since they are a download of their
own. The encoder takes as long; with random weights few masks pass its filters,
so the time spent on them is left out, and the figure is a lower bound.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

SAM = """
import sys, numpy as np, torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
torch.manual_seed(0)
generate = SamAutomaticMaskGenerator(sam_model_registry['vit_b']()).generate
for path in sys.argv[1:]:
  generate(np.asarray(Image.open(path).convert('RGB')))
"""

FELZENSZWALB = """
import sys, numpy as np
from PIL import Image
from skimage.segmentation import felzenszwalb
for path in sys.argv[1:]:
  photo = np.asarray(Image.open(path).convert('RGB'))
  ids = felzenszwalb(photo, scale=300, sigma=0.8, min_size=100)
  Image.fromarray(ids.astype(np.uint16)).save('/dev/null', 'PNG')
"""


def seconds(*command):
  began = time.perf_counter()
  subprocess.run(command, check=True, capture_output=True)
  return time.perf_counter() - began


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--photos', required=True, type=pathlib.Path)
  parser.add_argument('--num_photos', type=int, default=20)
  parser.add_argument('--num_sam_photos', type=int, default=2)
  args = parser.parse_args()
  photos = sorted(str(p) for p in args.photos.iterdir())[: args.num_photos]
  few = photos[: args.num_sam_photos]
  with tempfile.TemporaryDirectory() as folder:
    predict = [sys.executable, '-m', 'bitseg_jax.predict']
    predict += [f'--input={photo}' for photo in photos]
    seconds(*predict, f'--output={folder}/warm')  # compiles, and keeps that
    times = {
      'bitseg predict': (seconds(*predict, f'--output={folder}/out'), photos),
      'Felzenszwalb': (
        seconds(sys.executable, '-c', FELZENSZWALB, *photos),
        photos,
      ),
      'SAM ViT-B, everything': (
        seconds(sys.executable, '-c', SAM, *few),
        few,
      ),
    }
  print(f'{"whole process":24}{"photos":>8}{"seconds":>10}{"a photo":>10}')
  for name, (total, used) in times.items():
    each = total / len(used)
    print(f'{name:24}{len(used):8}{total:10.1f}{each:10.2f}')


if __name__ == '__main__':
  main()
