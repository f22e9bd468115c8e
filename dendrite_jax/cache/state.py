"""The cache state: one paged pool, and a table row for each held branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache.array_struct import ArrayStruct
from dendrite_jax.cache.codec import Codec, KVShape, LayerGroup, identity_codecs
from dendrite_jax.cache.ledger import Ledger
from dendrite_jax.kernels.blocks import BLOCK_SIZE
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy

NO_BLOCK = -1
"""A table entry without a block."""
NO_BRANCH = -1
"""A branch id that names no branch: an idle lane, a failed fork."""
GUARD_COUNT = 1 << 30
"""Reference count of the guard blocks of debug mode; they are never allocated."""
GUARD_VALUE = 77
"""What guard blocks hold: as their dtype rounds it: no plausible key or token run."""

# Flags of one branch, which takes no more tokens until it is cut or its want is met (`resize`).
OUT_OF_BLOCKS = 1
CONTEXT_FULL = 2
BAD_TOKEN = 4
BAD_LOGITS = 8

# Sticky flags of the whole cache: a call that was refused for one of its ids.
UNKNOWN_BRANCH = 1
DUPLICATE_BRANCH = 2
SLOT_IN_USE = 4
OUT_OF_SLOTS = 8
COUNT_TOO_LARGE = 16
EMPTY_BRANCH = 32
BAD_LENGTH = 64
STALE_BRANCH = 128


@dataclass(frozen=True)
class CacheConfig:
    """Static capacities of a cache.

    Attributes:
      num_blocks: physical blocks of the pool, shared by all branches.
      num_slots: branches that can be held at once.
      max_context: tokens a branch can hold.
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

    @property
    def physical_blocks(self) -> int:
        """Blocks of the pool, the guard blocks of debug mode included."""
        return 2 * self.num_blocks + 1 if self.debug else self.num_blocks


class KVPool(ArrayStruct):
    """The physical blocks. A block with `ref_count` 0 is free and its contents mean nothing."""

    groups: tuple[LayerGroup, ...]  # the keys and values of all layers; a block is in every group
    tokens: Array  # i32[blocks, block_size], the token ids whose keys and values are here
    ref_count: Array  # i32[blocks], table entries of live branches that name the block

    @property
    def block_bytes(self) -> int:
        """Bytes of the keys and values of one block."""
        return sum(group.block_bytes for group in self.groups)

    def group_of(self, layer: int) -> tuple[int, int]:
        """Where a model's layer is: the index of its group, and its place in the group's arrays."""
        for index, group in enumerate(self.groups):
            if layer in group.layers:
                return index, group.layers.index(layer)
        raise ValueError(f"layer {layer} is in none of the pool's groups")


class Cache(ArrayStruct):
    """A pool and its branches, an immutable pytree.

    Functions on it return a new one. Under `jax.jit` donate it (`donate_argnums`) or carry it in a
    loop, so that the pool is updated in place instead of copied.
    """

    pool: KVPool
    table: Array  # i32[slots, max_blocks], physical block of each logical block, or NO_BLOCK
    length: Array  # i32[slots], tokens held
    alive: Array  # bool[slots], the slot holds a branch
    error: Array  # i32[slots], OUT_OF_BLOCKS | CONTEXT_FULL | BAD_TOKEN | BAD_LOGITS
    misuse: Array  # i32[], the flags of refused calls, UNKNOWN_BRANCH to STALE_BRANCH
    peak_blocks: Array  # i32[], most blocks ever in use at once
    blocks_short: Array  # i32[], most blocks that one call wanted beyond the free ones
    ledger: Ledger
    max_context: int = struct.field(pytree_node=False)  # tokens that a branch can hold
    policy: KernelPolicy = struct.field(pytree_node=False, default=DEFAULT_POLICY)
    """How blocks are copied; the model's, since `append` copies without a model."""

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


def init(
    config: CacheConfig,
    shape: KVShape,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    codecs: Sequence[Codec] | None = None,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> Cache:
    """An empty cache.

    Args:
      config: the capacities.
      shape: the model's groups of layers.
      dtype: what keys and values are kept in without `codecs`.
      codecs: the codec of each group; None keeps keys and values as they are.
      policy: how blocks are copied.
    """
    codecs = identity_codecs(shape, dtype) if codecs is None else codecs
    blocks, slots = config.physical_blocks, config.num_slots
    pool = KVPool(
        groups=tuple(
            LayerGroup.zeros(group, codec, blocks, config.block_size)
            for group, codec in zip(shape, codecs, strict=True)
        ),
        tokens=jnp.zeros((blocks, config.block_size), jnp.int32),
        ref_count=jnp.zeros(blocks, jnp.int32),
    )
    if config.debug:
        pool = plant_guards(pool)
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
        max_context=config.max_context,
        policy=policy,
    )


def plant_guards(pool: KVPool) -> KVPool:
    """Makes every even block of a pool, which no branch may hold, a guard block of debug mode."""
    guard = jnp.arange(pool.ref_count.shape[0]) % 2 == 0
    return KVPool(
        groups=tuple(group.fill(guard, GUARD_VALUE) for group in pool.groups),
        tokens=jnp.where(guard[:, None], GUARD_VALUE, pool.tokens),
        ref_count=jnp.where(guard, GUARD_COUNT, pool.ref_count),
    )
