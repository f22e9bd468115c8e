"""Decode attention over a tree of branches that share physical blocks."""

from dendrite_jax.kernels.tree_attention.api import tree_attention

__all__ = ["tree_attention"]
