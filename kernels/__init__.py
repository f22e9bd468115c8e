"""Kernels, each beside its plain-XLA reference; imported as dendrite_jax.kernels."""
