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
from bitseg_jax.runs import weights


def serve(
  checkpoint: str, host: str, port: int, max_upload_mb: int, max_pixels: int
) -> None:
  """Serves the page until it is interrupted.

  Args:
    checkpoint: as weights.read takes it.
    host, port: address to listen at; 0.0.0.0 lets other machines in.
    max_upload_mb, max_pixels: megabytes of a file, pixels of a photo.

  Raises:
    ImportError: gradio is not installed.
    OSError, ValueError: the checkpoint cannot be read, or the port is taken.
  """
  # Before the model is loaded, which takes a while.
  try:
    from bitseg_jax.app.page import actions, layout
  except ImportError as error:
    raise ImportError(
      f"the page needs gradio ({error}); pip install 'gradio>=6'"
    ) from error
  try:
    with socket.socket() as probe:
      # As the server does: what has just been closed is free.
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      probe.bind((host, port))
  except OSError as error:
    raise OSError(
      f'cannot listen at {host}:{port} ({error.strerror}); choose another '
      '--port or --host'
    ) from error
  segmenter = Segmenter.from_pretrained(checkpoint)
  print('compiling the model ...', flush=True)
  segmenter.segment(np.zeros((32, 32, 3), np.uint8))
  with tempfile.TemporaryDirectory(prefix='bitseg_demo_') as folder:
    # A signal ends the page, and the folder with it.
    interrupts.at_end.append(lambda: shutil.rmtree(folder, ignore_errors=True))
    # Uploads too are gone when the page is.
    os.environ['GRADIO_TEMP_DIR'] = str(Path(folder, 'uploads'))
    results = Path(folder, 'results')
    blocks = layout.build(segmenter, checkpoint, results, max_pixels)
    blocks.queue(max_size=32).launch(
      server_name=host,
      server_port=port,
      share=False,
      ssr_mode=False,
      enable_monitoring=False,
      max_file_size=max_upload_mb * 2**20,
      show_error=True,
      quiet=True,
      footer_links=[],
      css=layout.CSS,
      # Gradio hands out what lies in the folder where it is started.
      allowed_paths=[str(path) for path in actions.EXAMPLES],
      prevent_thread_lock=True,
    )
    print(f'ready: http://{host}:{port}', flush=True)
    blocks.block_thread()


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string('checkpoint', None, weights.FLAG_HELP)
  flags.DEFINE_string('host', '127.0.0.1', 'Address to listen at.')
  flags.DEFINE_integer('port', 7860, 'Port.', 1, 65535)
  flags.DEFINE_integer('max_upload_mb', 20, 'Megabytes of a file.', 1)
  flags.DEFINE_integer('max_pixels', 50_000_000, 'Pixels of a photo.', 1)


def main() -> None:
  """Runs `serve` on the flags."""
  f = flags.FLAGS
  checkpoint = f.checkpoint or weights.DEFAULT
  serve(checkpoint, f.host, f.port, f.max_upload_mb, f.max_pixels)


if __name__ == '__main__':
  cli.run(define_flags, main)
