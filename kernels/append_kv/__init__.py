"""Writing the keys and values of new tokens into the paged pool."""

from dendrite_jax.kernels.append_kv.api import append_kv

__all__ = ["append_kv"]
