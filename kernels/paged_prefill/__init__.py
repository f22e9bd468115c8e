"""Attention of new tokens over a paged prefix and over each other."""

from dendrite_jax.kernels.paged_prefill.api import paged_prefill

__all__ = ["paged_prefill"]
