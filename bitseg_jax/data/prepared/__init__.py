"""Prepared datasets: ArrayRecord files, written and read through TFDS."""
