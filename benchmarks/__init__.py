"""Benchmarks; imported as dendrite_jax.benchmarks."""
