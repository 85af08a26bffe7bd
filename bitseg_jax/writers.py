"""Metrics to a JSON-lines file and TensorBoard, by CLU's MetricWriter calls.

CLU's own writers import TensorFlow.
"""

import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter


class MetricWriter:
  """Appends to <logdir>/metrics.jsonl and to TensorBoard event files."""

  def __init__(self, logdir: str | pathlib.Path, enabled: bool = True):
    """Opens the files; with enabled False every call does nothing."""
    self._enabled = enabled
    if enabled:
      pathlib.Path(logdir).mkdir(parents=True, exist_ok=True)
      self._lines = open(pathlib.Path(logdir) / 'metrics.jsonl', 'a')  # noqa: SIM115
      self._board = SummaryWriter(str(logdir))

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers at a step."""
    if not self._enabled:
      return
    values = {name: float(value) for name, value in scalars.items()}
    line = {'step': step, 'time': round(time.time(), 3), **values}
    self._lines.write(json.dumps(line) + '\n')
    for name, value in values.items():
      self._board.add_scalar(name, value, step)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures, uint8 [H, W, 3], to TensorBoard at a step."""
    if self._enabled:
      for name, image in images.items():
        self._board.add_image(name, image, step, dataformats='HWC')

  def write_hparams(self, hparams: Mapping[str, Any]) -> None:
    """Writes the settings of the run, as text, to TensorBoard."""
    if self._enabled:
      text = json.dumps(hparams, indent=2, default=str)
      self._board.add_text('config', f'```\n{text}\n```')

  def flush(self) -> None:
    """Makes everything written so far readable by others."""
    if self._enabled:
      self._lines.flush()
      self._board.flush()

  def close(self) -> None:
    """Flushes and closes the files."""
    if self._enabled:
      self.flush()
      self._lines.close()
      self._board.close()
