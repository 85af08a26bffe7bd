"""The README.md of a pretrained model, as the Hugging Face Hub shows it."""

from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict


def write(
  name: str, tensors: Mapping[str, np.ndarray], config: ConfigDict, card: str
) -> str:
  """Returns the text of a model's README.md.

  Args:
    name: of the model.
    tensors: its parameters by name.
    config: of its run.
    card: what its author says of it, Markdown; '' is nothing.
  """
  count = sum(tensor.size for tensor in tensors.values())
  dtype = next(iter(tensors.values())).dtype
  codes = config.codes
  return f"""---
library_name: bitseg_jax
pipeline_tag: image-segmentation
---

# {name}

{card.strip() or 'Nobody has described this model yet.'}

The model divides a photo into entities without naming them, by diffusion over
analog bits. It has {count:,} parameters, stored as {dtype}, and sees photos as
squares of {config.data.image_size} pixels in which it tells at most
{codes.num_codes} entities apart ({codes.encoding}).

```python
from bitseg_jax import Segmenter

segmenter = Segmenter.from_pretrained('FOLDER')
id_map = segmenter.segment(photo).id_map
```

On the command line:

```
bitseg predict --checkpoint=FOLDER --input='photos/*.jpg' --output=segmented
```
"""
