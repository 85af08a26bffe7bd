"""A page on which to segment photos with a trained model.

pip install 'gradio>=6'
bitseg demo [--checkpoint=DIR] [--host=127.0.0.1] [--port=7860]

The page is there when the address is printed. It answers this machine alone
unless --host says otherwise, and asks nothing of any other. Photos are
segmented one after another.
"""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
from absl import flags

from bitseg_jax import cli, interrupts
from bitseg_jax.app.segmenter import Segmenter
from bitseg_jax.data import outside
from bitseg_jax.runs import programs, weights


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string('checkpoint', weights.DEFAULT, weights.FLAG_HELP)
  flags.DEFINE_string('host', '127.0.0.1', 'Address; 0.0.0.0: for everybody.')
  flags.DEFINE_integer('port', 7860, 'Port.', 1, 65535)
  flags.DEFINE_integer('max_upload_mb', 20, 'Megabytes of a file.', 1)
  flags.DEFINE_integer('max_pixels', 50_000_000, 'Pixels of a photo.', 1)


def main() -> None:
  """Serves the page until it is interrupted."""
  f = flags.FLAGS
  # What may be missing is told before the model is loaded, which takes a while.
  try:
    from bitseg_jax.app.page import actions, layout
  except ImportError as error:
    raise ImportError(
      f"the page needs gradio ({error}); pip install 'gradio>=6'"
    ) from error
  advice = 'choose another --port or --host'
  with outside.named(f'{f.host}:{f.port}', 'cannot listen there', advice):
    socket.create_server((f.host, f.port)).close()
  programs.keep_programs()
  segmenter = Segmenter.from_pretrained(f.checkpoint)
  print('compiling the model ...', flush=True)
  segmenter.segment(np.zeros((32, 32, 3), np.uint8))
  with tempfile.TemporaryDirectory(prefix='bitseg_demo_') as folder:
    # A signal ends the page, and the folder with it.
    interrupts.at_end.append(lambda: shutil.rmtree(folder, ignore_errors=True))
    # Uploads too are gone when the page is.
    os.environ['GRADIO_TEMP_DIR'] = str(Path(folder, 'uploads'))
    results = Path(folder, 'results')
    blocks = layout.build(segmenter, f.checkpoint, results, f.max_pixels)
    blocks.queue(max_size=32).launch(
      server_name=f.host,
      server_port=f.port,
      share=False,
      ssr_mode=False,
      enable_monitoring=False,
      max_file_size=f.max_upload_mb * 2**20,
      show_error=True,
      quiet=True,
      footer_links=[],
      css=layout.CSS,
      # Gradio hands out what lies in the folder where it is started.
      allowed_paths=[str(path) for path in actions.EXAMPLES],
      prevent_thread_lock=True,
    )
    print(f'ready: http://{f.host}:{f.port}', flush=True)
    blocks.block_thread()


if __name__ == '__main__':
  cli.run(define_flags, main)
