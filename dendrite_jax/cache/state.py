"""The cache state: one paged pool, and a table row for each held branch."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache.ledger import Ledger
from dendrite_jax.kernels.blocks import BLOCK_SIZE

NO_BLOCK = -1
"""A table entry without a block."""
NO_BRANCH = -1
"""A branch id that names no branch: an idle lane, a failed fork."""
GUARD_COUNT = 1 << 30
"""Reference count of the guard blocks of debug mode; they are never allocated."""
GUARD_VALUE = 77
"""What guard blocks hold: exact in every supported dtype, and no plausible key or token run."""

# Sticky flags of one branch; a flagged branch takes no more tokens.
OUT_OF_BLOCKS = 1
CONTEXT_FULL = 2

# Sticky flags of the whole cache: a call that was refused for one of its ids.
UNKNOWN_BRANCH = 1
DUPLICATE_BRANCH = 2
SLOT_IN_USE = 4
OUT_OF_SLOTS = 8
COUNT_TOO_LARGE = 16
EMPTY_BRANCH = 32


@dataclass(frozen=True)
class CacheConfig:
    """Static capacities of a cache.

    Attributes:
      num_blocks: physical blocks of the pool, shared by all branches.
      num_slots: branches that can be held at once.
      max_context: tokens a branch can hold; rounded up to whole blocks.
      block_size: tokens a block.
      debug: interleaves guard blocks, see `dendrite_jax.cache.debug`; doubles the pool.
    """

    num_blocks: int
    num_slots: int
    max_context: int
    block_size: int = BLOCK_SIZE
    debug: bool = False

    def __post_init__(self) -> None:
        for field in ("num_blocks", "num_slots", "max_context", "block_size"):
            value = getattr(self, field)
            if value < 1:
                raise ValueError(f"CacheConfig.{field} is {value}; it must be at least 1")

    @property
    def max_blocks(self) -> int:
        """Width of a table row, in blocks."""
        return -(-self.max_context // self.block_size)


class KVPool(struct.PyTreeNode):
    """The physical blocks. A block with `ref_count` 0 is free and its contents mean nothing."""

    k: Array  # [layers, blocks, kv_heads, block_size, head_dim]
    v: Array  # [layers, blocks, kv_heads, block_size, head_dim]
    tokens: Array  # i32[blocks, block_size], the token ids whose keys and values are here
    ref_count: Array  # i32[blocks], table entries of live branches that name the block


class Cache(struct.PyTreeNode):
    """A pool and its branches, an immutable pytree.

    Functions on it return a new one. Under `jax.jit` donate it (`donate_argnums`) or carry it in a
    loop, so that the pool is updated in place instead of copied.
    """

    pool: KVPool
    table: Array  # i32[slots, max_blocks], physical block of each logical block, or NO_BLOCK
    length: Array  # i32[slots], tokens held
    alive: Array  # bool[slots], the slot holds a branch
    error: Array  # i32[slots], OUT_OF_BLOCKS | CONTEXT_FULL
    misuse: Array  # i32[], the flags of refused calls, UNKNOWN_BRANCH to EMPTY_BRANCH
    peak_blocks: Array  # i32[], most blocks ever in use at once
    blocks_short: Array  # i32[], most blocks that one call wanted beyond the free ones
    ledger: Ledger

    @property
    def num_slots(self) -> int:
        return self.table.shape[0]

    @property
    def num_blocks(self) -> int:
        """Physical blocks, the guard blocks of debug mode included."""
        return self.pool.ref_count.shape[0]

    @property
    def block_size(self) -> int:
        return self.pool.tokens.shape[1]

    @property
    def max_context(self) -> int:
        """Tokens that fit in a table row."""
        return self.table.shape[1] * self.block_size


def init(
    config: CacheConfig,
    *,
    num_layers: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Cache:
    """An empty cache for a model of the given shape; keys and values are kept in `dtype`."""
    blocks = 2 * config.num_blocks + 1 if config.debug else config.num_blocks
    shape = (num_layers, blocks, num_kv_heads, config.block_size, head_dim)
    slots = config.num_slots
    pool = KVPool(
        k=jnp.zeros(shape, dtype),
        v=jnp.zeros(shape, dtype),
        tokens=jnp.zeros((blocks, config.block_size), jnp.int32),
        ref_count=jnp.zeros(blocks, jnp.int32),
    )
    if config.debug:
        pool = _plant_guards(pool)
    return Cache(
        pool=pool,
        table=jnp.full((slots, config.max_blocks), NO_BLOCK, jnp.int32),
        length=jnp.zeros(slots, jnp.int32),
        alive=jnp.zeros(slots, bool),
        error=jnp.zeros(slots, jnp.int32),
        misuse=jnp.int32(0),
        peak_blocks=jnp.int32(0),
        blocks_short=jnp.int32(0),
        ledger=Ledger.zeros(),
    )


def _plant_guards(pool: KVPool) -> KVPool:
    """Makes every even block of an empty pool a guard block."""
    guard = jnp.arange(pool.ref_count.shape[0]) % 2 == 0
    per_block = guard[:, None, None, None]
    return KVPool(
        k=jnp.where(per_block, jnp.asarray(GUARD_VALUE, pool.k.dtype), pool.k),
        v=jnp.where(per_block, jnp.asarray(GUARD_VALUE, pool.v.dtype), pool.v),
        tokens=jnp.where(guard[:, None], GUARD_VALUE, pool.tokens),
        ref_count=jnp.where(guard, GUARD_COUNT, pool.ref_count),
    )
