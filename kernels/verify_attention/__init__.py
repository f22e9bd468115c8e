"""Attention of draft token trees over a cached prefix, for speculative verification."""

from dendrite_jax.kernels.verify_attention.api import ancestor_mask, verify_attention

__all__ = ["ancestor_mask", "verify_attention"]
