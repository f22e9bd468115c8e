"""Products of a few rows with a large weight, fused with their neighbours in a decoder layer."""

from dendrite_jax.kernels.skinny_matmul.api import residual_matmul, skinny_matmul
from dendrite_jax.kernels.skinny_matmul.reference import rms_norm
from dendrite_jax.kernels.skinny_matmul.shapes import MAX_ROWS

__all__ = ["MAX_ROWS", "residual_matmul", "rms_norm", "skinny_matmul"]
