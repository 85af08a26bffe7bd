"""Evaluation of a model, or of any other method, on a dataset."""
