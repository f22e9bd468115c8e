"""Which lanes of a call name a usable branch."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache.state import DUPLICATE_BRANCH, UNKNOWN_BRANCH, Cache


class Lanes(NamedTuple):
    """The branch ids of a call, checked."""

    slot: Array  # i32[lanes], safe to gather with
    valid: Array  # bool[lanes], names a live branch, the first time in this call
    misuse: Array  # i32[], flags to raise

    def where(self, keep: Array, sentinel: int) -> Array:
        """The slots to scatter to: `sentinel` (out of range, dropped) where not kept."""
        return jnp.where(keep, self.slot, sentinel)


def check_lanes(cache: Cache, branch_ids: Array) -> Lanes:
    """Splits branch ids i32[lanes] into usable lanes and misuse; a negative id is an idle lane."""
    lane = jnp.arange(branch_ids.shape[0])
    slots = cache.num_slots
    named = branch_ids >= 0
    slot = jnp.clip(branch_ids, 0, slots - 1)
    live = named & (branch_ids < slots) & cache.alive[slot]
    first = jnp.full(slots, lane.shape[0]).at[jnp.where(live, slot, slots)].min(lane, mode="drop")
    repeated = live & (first[slot] != lane)
    misuse = jnp.where(jnp.any(named & ~live), UNKNOWN_BRANCH, 0)
    misuse |= jnp.where(jnp.any(repeated), DUPLICATE_BRANCH, 0)
    return Lanes(slot, live & ~repeated, misuse)


def flag_branches(cache: Cache, branch_ids: Array, flags: Array) -> Cache:
    """Raises sticky flags i32[lanes] of branches i32[lanes]; a flagged one takes no more tokens.

    Flags of 0, a negative id, and one that holds no branch raise none.
    """
    slot = jnp.clip(branch_ids, 0, cache.num_slots - 1)
    raised = (slot == branch_ids) & cache.alive[slot] & (flags != 0)
    place = jnp.where(raised, slot, cache.num_slots)
    return cache.replace(error=cache.error.at[place].set(cache.error[slot] | flags, mode="drop"))
