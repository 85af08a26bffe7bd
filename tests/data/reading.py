"""Prepares a source as the command does, and reads records back by name."""

from bitseg_jax import cli
from bitseg_jax.data.prepared import splits, write


def run(source, output, dataset='folder', **options):
  return cli.call(
    lambda: write.prepare(dataset, str(source), str(output), **options)
  )


def read_all(output, *names):
  """Records of these splits, or of all."""
  readers = [
    splits.open_split(output, split)
    for split in names or splits.read_metadata(output)['splits']
  ]
  return {r['name']: r for reader in readers for r in reader}
