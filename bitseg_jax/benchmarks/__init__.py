"""What bitseg_jax.benchmark measures, on the host and on the device."""
