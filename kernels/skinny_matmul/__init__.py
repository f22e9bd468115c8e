"""Products of a few rows with a large weight, fused with their neighbours in a decoder layer."""

from dendrite_jax.kernels.skinny_matmul.api import skinny_matmul

__all__ = ["skinny_matmul"]
