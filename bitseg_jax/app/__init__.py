"""From a photograph to its segmentation, with a trained model."""
