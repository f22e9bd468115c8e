"""Debug mode: guard blocks around every block, and the invariants of the cache as values.

With `CacheConfig(debug=True)` every usable block lies between two guard blocks that hold a known
pattern and are never allocated. A write outside a branch's own blocks damages a pattern or breaks
a count, and `violations` names what broke.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache.state import GUARD_COUNT, GUARD_VALUE, NO_BLOCK, Cache


class Violations(struct.PyTreeNode):
    """Which invariants fail, each a bool[]; all False on a sound cache."""

    count_differs: Array  # a reference count is not the number of table entries that name the block
    table_out_of_range: Array  # a live table names a block that does not exist
    uncovered_length: Array  # a live branch lacks a block for one of its tokens
    excess_block: Array  # a branch holds a block beyond its length, or a dead slot holds one
    guard_damaged: Array  # a guard block lost its pattern


class CacheCorrupted(RuntimeError):
    """An invariant of the cache failed: a bug in a kernel or in the engine."""


def violations(cache: Cache) -> Violations:
    """Checks the invariants of a cache; pure, usable inside jit."""
    pool, table = cache.pool, cache.table
    blocks = cache.num_blocks
    column = jnp.arange(table.shape[1])
    covered = -(-cache.length // cache.block_size)  # blocks that each branch must hold
    held = table != NO_BLOCK
    live_held = held & cache.alive[:, None]
    missing = jnp.any(~held & (column < covered[:, None]), axis=1)
    named = jnp.zeros(blocks, jnp.int32).at[jnp.where(live_held, table, blocks)].add(1, mode="drop")
    guard = pool.ref_count >= GUARD_COUNT
    intact = jnp.all(pool.tokens == GUARD_VALUE, axis=1)
    for group in pool.groups:
        intact &= group.holds(GUARD_VALUE)
    return Violations(
        count_differs=jnp.any(jnp.where(guard, GUARD_COUNT, 0) + named != pool.ref_count),
        table_out_of_range=jnp.any(live_held & ((table < 0) | (table >= blocks))),
        uncovered_length=jnp.any(cache.alive & (missing | (cache.length > cache.max_context))),
        excess_block=jnp.any(held & (column >= covered[:, None])),
        guard_damaged=jnp.any(guard & ~intact),
    )


def check(cache: Cache) -> None:
    """Raises CacheCorrupted naming every broken invariant; reads the device."""
    found = violations(cache)
    broken = [name for name in found.__dataclass_fields__ if bool(getattr(found, name))]
    if broken:
        raise CacheCorrupted(f"cache invariants broken: {', '.join(broken)}")
