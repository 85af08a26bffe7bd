"""Benchmarks: how fast the parts run on the host and on the devices."""
