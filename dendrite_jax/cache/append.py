"""Making room for new tokens: vectorised allocation and copy-on-write."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache.lanes import Lanes, check_lanes
from dendrite_jax.cache.loops import while_any
from dendrite_jax.cache.state import (
    CONTEXT_FULL,
    COUNT_TOO_LARGE,
    GUARD_COUNT,
    OUT_OF_BLOCKS,
    Cache,
    KVPool,
)


class Appended(NamedTuple):
    """Where the new tokens of a call go; the model writes their keys and values there."""

    ok: Array  # bool[lanes], the lane takes its tokens
    start: Array  # i32[lanes], position of the lane's first new token
    table: Array  # i32[lanes, max_blocks], the lanes' rows, new blocks included
    length: Array  # i32[lanes], tokens held afterwards; 0 where not ok
    block: Array  # i32[lanes, tokens], physical block of each token; `num_blocks` = write nothing
    offset: Array  # i32[lanes, tokens], place within the block
    plan: Any = None  # what the model has made of the tables, where a loop keeps that


class _Need(NamedTuple):
    """What each lane must be given before it can write."""

    ok: Array  # bool[lanes]
    taken: Array  # i32[lanes], blocks to take
    first: Array  # i32[lanes], index of the lane's first block among the free ones
    copied: Array  # bool[lanes], the lane's partly filled last block is copied
    tail: Array  # i32[lanes], that block
    logical: Array  # i32[lanes], table column of the lane's first taken block
    short: Array  # i32[], blocks wanted beyond the free ones


def append(cache: Cache, branch_ids: Array, tokens: Array, count: Array) -> tuple[Cache, Appended]:
    """Makes room for new tokens, records their ids and advances the lengths.

    A partly filled last block that others hold too is copied first; the last of several holders
    that write in one call keeps it. Lanes are served in order, each with all the blocks it needs or
    none: one that does not fit, or would outgrow its table row, is flagged and left as it was, and
    its blocks go to those behind it.

    Args:
      cache: the cache; donate it under jit.
      branch_ids: i32[lanes], each at most once; negative for an idle lane.
      tokens: i32[lanes, tokens].
      count: i32[lanes], how many of a lane's tokens are real. A lane whose count is larger than
        its tokens are many takes none and raises a misuse flag.

    Returns:
      The cache and where to write.
    """
    lanes = check_lanes(cache, branch_ids)
    slot = lanes.slot
    start = cache.length[slot]
    overrun = lanes.valid & (count > tokens.shape[1])
    wanted = lanes.valid & (cache.error[slot] == 0) & (count > 0) & ~overrun
    too_long = wanted & (start + count > cache.max_context)
    need = _plan(cache, lanes, wanted & ~too_long, start, count, tokens.shape[1])
    pool, table = _take_blocks(cache, lanes, need, tokens.shape[1])

    position = start[:, None] + jnp.arange(tokens.shape[1])
    rows = table[slot]
    written = need.ok[:, None] & (jnp.arange(tokens.shape[1]) < count[:, None])
    column = jnp.minimum(position // cache.block_size, table.shape[1] - 1)
    block = jnp.where(written, jnp.take_along_axis(rows, column, axis=1), cache.num_blocks)
    offset = position % cache.block_size
    pool = pool.replace(tokens=pool.tokens.at[block, offset].set(tokens, mode="drop"))

    in_use = jnp.sum((pool.ref_count > 0) & (pool.ref_count < GUARD_COUNT))
    flag = jnp.where(too_long, CONTEXT_FULL, jnp.where(wanted & ~need.ok, OUT_OF_BLOCKS, 0))
    flagged = lanes.where(flag != 0, cache.num_slots)
    grown = lanes.where(need.ok, cache.num_slots)
    cache = cache.replace(
        pool=pool,
        table=table,
        length=cache.length.at[grown].add(count, mode="drop"),
        error=cache.error.at[flagged].set(flag, mode="drop"),
        misuse=cache.misuse | lanes.misuse | jnp.where(jnp.any(overrun), COUNT_TOO_LARGE, 0),
        peak_blocks=jnp.maximum(cache.peak_blocks, in_use),
        blocks_short=jnp.maximum(cache.blocks_short, need.short),
        ledger=cache.ledger.add(blocks_copied=jnp.sum(need.copied)),
    )
    length = jnp.where(need.ok, start + count, 0)
    return cache, Appended(need.ok, start, rows, length, block, offset)


def blocks_per_lane(num_tokens: int, block_size: int) -> int:
    """Most blocks that appending `num_tokens` to one branch can take, its copy included."""
    return -(-(num_tokens - 1) // block_size) + 1


class _Wish(NamedTuple):
    """What each lane would take, whichever lanes are refused."""

    fresh: Array  # i32[lanes], blocks beyond those it holds
    partial: Array  # bool[lanes], it writes to a partly filled block
    keeper: (
        Array  # i32[lanes], the lane that keeps that block if all others copy it; `lanes` = none
    )

    def copied(self, refused: Array) -> Array:
        """bool[lanes]: whether a lane copies its partly filled block.

        When all holders of a block write in one call, the last of them keeps it; a refused lane
        still holds its block, so then nobody keeps it.
        """
        lanes = refused.shape[0]
        held = jnp.zeros(lanes, bool)
        held = held.at[jnp.where(refused, self.keeper, lanes)].set(True, mode="drop")
        keeps = (self.keeper == jnp.arange(lanes)) & ~held
        return self.partial & ~keeps

    def blocks(self, refused: Array) -> Array:
        """i32[lanes]: blocks that a lane takes."""
        return jnp.where(refused, 0, self.fresh + self.copied(refused))


def _plan(
    cache: Cache, lanes: Lanes, wanted: Array, start: Array, count: Array, num_tokens: int
) -> _Need:
    size, blocks = cache.block_size, cache.num_blocks
    lane = jnp.arange(start.shape[0])
    column = start // size
    partial = wanted & (start % size != 0)
    tail = cache.table[lanes.slot, jnp.minimum(column, cache.table.shape[1] - 1)]
    tail = jnp.where(partial, tail, blocks)
    writers = jnp.zeros(blocks, jnp.int32).at[tail].add(1, mode="drop")
    last_writer = jnp.full(blocks, -1).at[tail].max(lane, mode="drop")
    safe_tail = jnp.minimum(tail, blocks - 1)
    all_write = partial & (writers[safe_tail] == cache.pool.ref_count[safe_tail])
    held_columns = column + partial
    wish = _Wish(
        fresh=jnp.where(wanted, -(-(start + count) // size) - held_columns, 0),
        partial=partial,
        keeper=jnp.where(all_write, last_writer[safe_tail], lane.shape[0]),
    )
    num_free = jnp.sum(cache.pool.ref_count == 0)
    refused = _refuse(wish, num_free, num_tokens)
    copied = wish.copied(refused) & ~refused
    taken = wish.blocks(refused)
    return _Need(
        ok=wanted & ~refused,
        taken=taken,
        first=jnp.cumsum(taken) - taken,
        copied=copied,
        tail=tail,
        logical=jnp.where(copied, column, held_columns),
        short=jnp.sum(wish.blocks(jnp.zeros_like(refused))) - num_free,
    )


def _refuse(wish: _Wish, num_free: Array, num_tokens: int) -> Array:
    """bool[lanes]: the lanes that get no blocks when they are served in order.

    Every turn settles the lanes before the first that does not fit, and refuses that one and all
    behind it that want more than is left then: later turns leave less, and make a lane want more.
    """
    lanes = wish.fresh.shape[0]

    def too_much(refused: Array) -> tuple[Array, Array]:
        blocks = wish.blocks(refused)
        return blocks, (blocks > 0) & (jnp.cumsum(blocks) > num_free)

    def turn(refused: Array) -> Array:
        blocks, over = too_much(refused)
        end = jnp.cumsum(blocks)
        left = num_free - jnp.max(jnp.where(end <= num_free, end, 0))
        return refused | (over & (blocks > left))

    refused = jnp.zeros(lanes, bool)
    if num_tokens == 1:
        # A lane wants one block at most: the first turn leaves none, the second refuses those that
        # want one since a holder of theirs was refused. A loop would be slower in a decode step.
        return turn(turn(refused))
    return while_any(lambda refused: jnp.any(too_much(refused)[1]), turn, refused)


def _take_blocks(cache: Cache, lanes: Lanes, need: _Need, num_tokens: int) -> tuple[KVPool, Array]:
    """Hands each lane its blocks and copies what is copied on write; the pool and the table."""
    blocks, pool = cache.num_blocks, cache.pool
    per_lane = blocks_per_lane(num_tokens, cache.block_size)
    total = min(need.ok.shape[0] * per_lane, blocks)
    free_block = jnp.nonzero(pool.ref_count == 0, size=total, fill_value=blocks)[0]
    nth = jnp.arange(per_lane)
    taken = nth < need.taken[:, None]
    new = free_block[jnp.minimum(need.first[:, None] + nth, total - 1)].astype(jnp.int32)
    new = jnp.where(taken, new, blocks)  # [lanes, per_lane]

    row = jnp.where(taken, lanes.slot[:, None], cache.num_slots)
    table = cache.table.at[row, need.logical[:, None] + nth].set(new, mode="drop")
    ref_count = pool.ref_count.at[new].set(1, mode="drop")
    ref_count = ref_count.at[jnp.where(need.copied, need.tail, blocks)].add(-1, mode="drop")

    source = jnp.where(need.copied, need.tail, 0)
    destination = jnp.where(need.copied, new[:, 0], blocks)
    # No `cond` around it: under `vmap` that would become a select between two whole pools.
    groups = tuple(g.copy_blocks(source, destination, cache.policy) for g in pool.groups)
    tokens = pool.tokens.at[destination].set(pool.tokens[source], mode="drop")
    return KVPool(groups=groups, tokens=tokens, ref_count=ref_count), table
