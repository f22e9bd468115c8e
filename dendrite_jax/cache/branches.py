"""Opening, forking, cutting and freeing branches: table rows and counts, never keys or values."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache.lanes import check_lanes
from dendrite_jax.cache.state import (
    BAD_LENGTH,
    NO_BLOCK,
    NO_BRANCH,
    OUT_OF_SLOTS,
    SLOT_IN_USE,
    UNKNOWN_BRANCH,
    Cache,
    KVPool,
)


def open_branches(cache: Cache, wanted: Array) -> tuple[Cache, Array]:
    """Takes an empty slot for each wanted lane.

    Args:
      cache: the cache; donate it under jit.
      wanted: bool[n].

    Returns:
      The cache and i32[n] branch ids, NO_BRANCH where not wanted or no slot was left (which
      raises the OUT_OF_SLOTS flag).
    """
    slot, misuse = _free_slots(cache, wanted)
    return (
        cache.replace(
            alive=cache.alive.at[slot].set(True, mode="drop"), misuse=cache.misuse | misuse
        ),
        _as_branch_ids(slot, cache.num_slots),
    )


def fork(
    cache: Cache, parents: Array, children: Array | None = None, length: Array | None = None
) -> tuple[Cache, Array]:
    """Makes a child of each parent by copying its table row and raising reference counts.

    No key or value moves, so the cost does not depend on how much the parents hold. The first
    write to a block that is shared after this, wherever in the block, copies it (`append`).

    Args:
      cache: the cache; donate it under jit.
      parents: i32[n], a parent may be named several times; negative for an idle lane.
      children: i32[n], the free slots to use; None takes any free slots.
      length: i32[n], how many of its parent's first tokens a child takes, from 0 to all, also in
        the middle of a block; None takes all.

    Returns:
      The cache and i32[n] child ids; NO_BRANCH for an idle lane and for a refused one (parent not
      alive, slot in use, no slot left, more tokens than the parent holds), which raises a misuse
      flag and changes nothing else. A child of all of a flagged branch is flagged, one of a part
      is not.
    """
    slots = cache.num_slots
    named = parents >= 0
    parent = jnp.clip(parents, 0, slots - 1)
    valid = named & (parents < slots) & cache.alive[parent]
    misuse = jnp.where(jnp.any(named & ~valid), UNKNOWN_BRANCH, 0)
    rows, kept, error = cache.table[parent], cache.length[parent], cache.error[parent]
    if length is not None:
        in_range = (length >= 0) & (length <= kept)
        misuse |= jnp.where(jnp.any(valid & ~in_range), BAD_LENGTH, 0)
        valid &= in_range
        error = jnp.where(length < kept, 0, error)
        kept = length
        rows = jnp.where(_covers(cache, kept), rows, NO_BLOCK)
    if children is None:
        child, slot_misuse = _free_slots(cache, valid)
    else:
        child, slot_misuse = _given_slots(cache, valid, children)
    made = child < slots

    inherited = jnp.sum(jnp.where(made, kept, 0))
    return (
        cache.replace(
            pool=_count_holders(cache, jnp.where(made[:, None], rows, NO_BLOCK), 1),
            table=cache.table.at[child].set(rows, mode="drop"),
            length=cache.length.at[child].set(kept, mode="drop"),
            alive=cache.alive.at[child].set(True, mode="drop"),
            error=cache.error.at[child].set(error, mode="drop"),
            misuse=cache.misuse | misuse | slot_misuse,
            ledger=cache.ledger.add(forks=jnp.sum(made), reused=inherited),
        ),
        _as_branch_ids(child, slots),
    )


def truncate(cache: Cache, branch_ids: Array, lengths: Array) -> tuple[Cache, Array]:
    """Gives the last tokens of branches back, and the blocks that held nothing else.

    The next append writes where the cut is, also in the middle of a block: if others hold that
    block, `append` copies it first. A branch that has become shorter is flagged no more: what
    stopped it was at its end.

    Args:
      cache: the cache; donate it under jit.
      branch_ids: i32[n], each at most once; negative for an idle lane.
      lengths: i32[n], how many of its first tokens a branch keeps, from 0 to all.

    Returns:
      The cache and bool[n], the branches that hold so many tokens now. One that holds fewer keeps
      all and raises a misuse flag.
    """
    lanes = check_lanes(cache, branch_ids)
    held = cache.length[lanes.slot]
    in_range = (lengths >= 0) & (lengths <= held)
    cut = lanes.valid & in_range
    misuse = lanes.misuse | jnp.where(jnp.any(lanes.valid & ~in_range), BAD_LENGTH, 0)
    rows, keeps = cache.table[lanes.slot], _covers(cache, lengths)
    given_back = jnp.where(cut[:, None] & ~keeps, rows, NO_BLOCK)
    slot = lanes.where(cut, cache.num_slots)
    return (
        cache.replace(
            pool=_count_holders(cache, given_back, -1),
            table=cache.table.at[slot].set(jnp.where(keeps, rows, NO_BLOCK), mode="drop"),
            length=cache.length.at[slot].set(lengths, mode="drop"),
            error=cache.error.at[jnp.where(lengths < held, slot, cache.num_slots)].set(
                0, mode="drop"
            ),
            misuse=cache.misuse | misuse,
        ),
        cut,
    )


def free(cache: Cache, branch_ids: Array) -> Cache:
    """Gives slots back and lowers the counts of their blocks; a block at 0 is free.

    Args:
      cache: the cache; donate it under jit.
      branch_ids: i32[n], negative for an idle lane. An id that holds no branch, or is named twice
        in one call, raises a misuse flag and is otherwise ignored.
    """
    lanes = check_lanes(cache, branch_ids)
    given_back = jnp.where(lanes.valid[:, None], cache.table[lanes.slot], NO_BLOCK)
    slot = lanes.where(lanes.valid, cache.num_slots)
    return cache.replace(
        pool=_count_holders(cache, given_back, -1),
        table=cache.table.at[slot].set(NO_BLOCK, mode="drop"),
        length=cache.length.at[slot].set(0, mode="drop"),
        alive=cache.alive.at[slot].set(False, mode="drop"),
        error=cache.error.at[slot].set(0, mode="drop"),
        misuse=cache.misuse | lanes.misuse,
    )


def _covers(cache: Cache, length: Array) -> Array:
    """bool[n, max_blocks]: the table columns that tokens i32[n] of a branch are in."""
    return jnp.arange(cache.table.shape[1]) * cache.block_size < length[:, None]


def _count_holders(cache: Cache, rows: Array, change: int) -> KVPool:
    """The pool after table rows i32[n, max_blocks] began (1) or ceased (−1) to name blocks."""
    blocks = jnp.where(rows != NO_BLOCK, rows, cache.num_blocks)
    return cache.pool.replace(ref_count=cache.pool.ref_count.at[blocks].add(change, mode="drop"))


def _free_slots(cache: Cache, wanted: Array) -> tuple[Array, Array]:
    """The next free slot for each wanted lane (`num_slots` for none), and misuse flags."""
    slots = cache.num_slots
    count = min(wanted.shape[0], slots)
    free_slot = jnp.nonzero(~cache.alive, size=count, fill_value=slots)[0].astype(jnp.int32)
    rank = jnp.cumsum(wanted) - 1
    slot = jnp.where(wanted & (rank < count), free_slot[jnp.clip(rank, 0, count - 1)], slots)
    return slot, jnp.where(jnp.any(wanted & (slot == slots)), OUT_OF_SLOTS, 0)


def _given_slots(cache: Cache, wanted: Array, chosen: Array) -> tuple[Array, Array]:
    """The chosen slots where they are free and named once (`num_slots` elsewhere), and misuse."""
    slots = cache.num_slots
    lane = jnp.arange(chosen.shape[0])
    safe = jnp.clip(chosen, 0, slots - 1)
    usable = wanted & (chosen == safe) & ~cache.alive[safe]
    first = jnp.full(slots, lane.shape[0]).at[jnp.where(usable, safe, slots)].min(lane, mode="drop")
    usable &= first[safe] == lane
    return jnp.where(usable, safe, slots), jnp.where(jnp.any(wanted & ~usable), SLOT_IN_USE, 0)


def _as_branch_ids(slot: Array, num_slots: int) -> Array:
    return jnp.where(slot < num_slots, slot, NO_BRANCH).astype(jnp.int32)
