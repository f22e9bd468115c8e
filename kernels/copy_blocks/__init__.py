"""Copying whole blocks of the paged pool: the copy of copy-on-write."""

from dendrite_jax.kernels.copy_blocks.api import copy_blocks

__all__ = ["copy_blocks"]
