"""How full a cache is, and how much its branches share."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache.state import GUARD_COUNT, NO_BLOCK, Cache


class CacheStats(struct.PyTreeNode):
    """Usage of a cache; scalars on the device."""

    branches: Array  # i32[], branches held
    blocks_used: Array  # i32[], physical blocks held by at least one branch
    blocks_free: Array  # i32[]
    blocks_shared: Array  # i32[], physical blocks held by two branches or more
    sharing_ratio: Array  # f32[], table entries per used block; 1 when nothing is shared
    fragmentation: Array  # f32[], share of the used blocks' token places that hold no token
    bytes_used: Array  # f32[], keys and values of the used blocks


def stats(cache: Cache) -> CacheStats:
    """Usage of a cache; pure, usable inside jit."""
    pool, table = cache.pool, cache.table
    blocks, size = cache.num_blocks, cache.block_size
    entry = (table != NO_BLOCK) & cache.alive[:, None]
    used = (pool.ref_count > 0) & (pool.ref_count < GUARD_COUNT)
    num_used = jnp.sum(used)
    nonzero = jnp.maximum(num_used, 1)
    filled = jnp.clip(cache.length[:, None] - size * jnp.arange(table.shape[1]), 0, size)
    fill = jnp.zeros(blocks, jnp.int32).at[jnp.where(entry, table, blocks)].max(filled, mode="drop")
    return CacheStats(
        branches=jnp.sum(cache.alive),
        blocks_used=num_used,
        blocks_free=jnp.sum(pool.ref_count == 0),
        blocks_shared=jnp.sum(used & (pool.ref_count > 1)),
        sharing_ratio=jnp.where(num_used > 0, jnp.sum(entry) / nonzero, 1.0),
        fragmentation=jnp.where(num_used > 0, 1.0 - jnp.sum(fill) / (nonzero * size), 0.0),
        bytes_used=num_used.astype(jnp.float32) * pool.block_bytes,
    )
