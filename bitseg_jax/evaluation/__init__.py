"""How well a model, or any other method, does on a dataset."""
