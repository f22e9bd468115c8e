"""From a layer's joined projection to rotated queries, and keys and values in the pool."""

from dendrite_jax.kernels.rope_append.api import rope_append

__all__ = ["rope_append"]
