"""Loops that stay in place under `vmap`; the cache has them, since it loops too."""

from dendrite_jax.cache.loops import any_mapped, run_if, while_any

__all__ = ["any_mapped", "run_if", "while_any"]
