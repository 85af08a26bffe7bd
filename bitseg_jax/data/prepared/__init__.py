"""Writes and reads prepared datasets: ArrayRecord files, through TFDS."""
