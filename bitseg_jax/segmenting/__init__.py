"""Segmentation of photos with a trained model, at their own size."""
