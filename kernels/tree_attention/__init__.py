"""Decode attention over a tree of branches that share physical blocks."""

from dendrite_jax.kernels.tree_attention.api import make_plan, tree_attention
from dendrite_jax.kernels.tree_attention.plan import Plan

__all__ = ["Plan", "make_plan", "tree_attention"]
