"""Products with a weight of any format, fused with their neighbours in a decoder layer."""

from dendrite_jax.kernels.linear.api import linear, residual_linear, runs_row_kernel
from dendrite_jax.kernels.linear.formats import Dense, Weight
from dendrite_jax.kernels.linear.reference import rms_norm
from dendrite_jax.kernels.linear.shapes import MAX_ROWS

__all__ = [
    "MAX_ROWS",
    "Dense",
    "Weight",
    "linear",
    "residual_linear",
    "rms_norm",
    "runs_row_kernel",
]
