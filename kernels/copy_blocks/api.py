"""The public call of the block copy."""

from __future__ import annotations

from jax import Array

from dendrite_jax.kernels.copy_blocks import reference


def copy_blocks(
    k_pool: Array, v_pool: Array, source: Array, destination: Array
) -> tuple[Array, Array]:
    """Copies blocks of the pool, all layers at once, in place under jit.

    Args:
      k_pool, v_pool: [layers, blocks, kv_heads, block_size, head_dim]; reuse the returned pools
        and drop these, so that XLA updates the buffers in place.
      source: i32[n], the blocks to read; no block is a source and a destination.
      destination: i32[n], the blocks to write, all different; `blocks` or more copies nothing.

    Returns:
      The updated pools.
    """
    return reference.copy_blocks(k_pool, v_pool, source, destination)
