"""Opening, forking and freeing branches: table rows and reference counts, never keys or values."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache.lanes import check_lanes
from dendrite_jax.cache.state import (
    NO_BLOCK,
    NO_BRANCH,
    OUT_OF_SLOTS,
    SLOT_IN_USE,
    UNKNOWN_BRANCH,
    Cache,
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


def fork(cache: Cache, parents: Array, children: Array | None = None) -> tuple[Cache, Array]:
    """Makes a child of each parent by copying its table row and raising reference counts.

    No key or value moves, so the cost does not depend on how much the parents hold. The first
    write to a block that is shared after this copies that block (`append`).

    Args:
      cache: the cache; donate it under jit.
      parents: i32[n], a parent may be named several times; negative for an idle lane.
      children: i32[n], the free slots to use; None takes any free slots.

    Returns:
      The cache and i32[n] child ids; NO_BRANCH for an idle lane and for a refused one (parent not
      alive, slot in use, no slot left), which raises a misuse flag and changes nothing else.
    """
    slots = cache.num_slots
    named = parents >= 0
    parent = jnp.clip(parents, 0, slots - 1)
    valid = named & (parents < slots) & cache.alive[parent]
    misuse = jnp.where(jnp.any(named & ~valid), UNKNOWN_BRANCH, 0)
    if children is None:
        child, slot_misuse = _free_slots(cache, valid)
    else:
        child, slot_misuse = _given_slots(cache, valid, children)
    made = child < slots

    rows = cache.table[parent]
    held = made[:, None] & (rows != NO_BLOCK)
    pool = cache.pool.replace(
        ref_count=cache.pool.ref_count.at[jnp.where(held, rows, cache.num_blocks)].add(
            1, mode="drop"
        )
    )
    inherited = jnp.sum(jnp.where(made, cache.length[parent], 0))
    return (
        cache.replace(
            pool=pool,
            table=cache.table.at[child].set(rows, mode="drop"),
            length=cache.length.at[child].set(cache.length[parent], mode="drop"),
            alive=cache.alive.at[child].set(True, mode="drop"),
            error=cache.error.at[child].set(cache.error[parent], mode="drop"),
            misuse=cache.misuse | misuse | slot_misuse,
            ledger=cache.ledger.add(forks=jnp.sum(made), reused=inherited),
        ),
        _as_branch_ids(child, slots),
    )


def free(cache: Cache, branch_ids: Array) -> Cache:
    """Gives slots back and lowers the counts of their blocks; a block at 0 is free.

    Args:
      cache: the cache; donate it under jit.
      branch_ids: i32[n], negative for an idle lane. An id that holds no branch, or is named twice
        in one call, raises a misuse flag and is otherwise ignored.
    """
    lanes = check_lanes(cache, branch_ids)
    rows = cache.table[lanes.slot]
    held = lanes.valid[:, None] & (rows != NO_BLOCK)
    pool = cache.pool.replace(
        ref_count=cache.pool.ref_count.at[jnp.where(held, rows, cache.num_blocks)].add(
            -1, mode="drop"
        )
    )
    slot = lanes.where(lanes.valid, cache.num_slots)
    return cache.replace(
        pool=pool,
        table=cache.table.at[slot].set(NO_BLOCK, mode="drop"),
        length=cache.length.at[slot].set(0, mode="drop"),
        alive=cache.alive.at[slot].set(False, mode="drop"),
        error=cache.error.at[slot].set(0, mode="drop"),
        misuse=cache.misuse | lanes.misuse,
    )


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
