"""Moving a cache into other capacities; host side, since what does not fit is refused."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax.cache.errors import CapacityError
from dendrite_jax.cache.state import (
    CONTEXT_FULL,
    GUARD_COUNT,
    NO_BLOCK,
    OUT_OF_BLOCKS,
    OUT_OF_SLOTS,
    Cache,
    CacheConfig,
    KVPool,
    plant_guards,
)


def resize(cache: Cache, config: CacheConfig) -> Cache:
    """A cache of other capacities that holds the same branches under the same ids.

    Tokens, keys and values are the same bits, shared as they were; only the numbers of physical
    blocks change. A flag that tells of a capacity which has grown is lifted, so that branches that
    stopped for want of it take tokens again. Both caches exist for a while.

    Args:
      cache: the cache; it stays usable.
      config: the new capacities, with the cache's block size.

    Raises:
      CapacityError: what the cache holds does not fit.
      ValueError: another block size.
    """
    if config.block_size != cache.block_size:
        raise ValueError(
            f"CacheConfig.block_size is {config.block_size}; a cache of blocks of "
            f"{cache.block_size} tokens cannot change it"
        )
    ref_count, alive, length = jax.device_get((cache.pool.ref_count, cache.alive, cache.length))
    used = int(np.sum((ref_count > 0) & (ref_count < GUARD_COUNT)))
    if used > config.num_blocks:
        raise CapacityError(f"num_blocks is {config.num_blocks}, and {used} are in use")
    last = int(np.max(np.flatnonzero(alive), initial=-1))
    if last >= config.num_slots:
        raise CapacityError(f"num_slots is {config.num_slots}, and branch {last} is held")
    longest = int(np.argmax(length))
    if length[longest] > config.max_context:
        raise CapacityError(
            f"max_context is {config.max_context}, and branch {longest} holds "
            f"{length[longest]} tokens"
        )
    return _move(cache, config)


def fit_slots(array: Array, num_slots: int, fill: int = 0) -> Array:
    """[slots, ...] cut or padded to so many slots."""
    rows = array[:num_slots]
    padding = [(0, num_slots - rows.shape[0])] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(rows, padding, constant_values=fill)


@partial(jax.jit, static_argnames="config")
def _move(cache: Cache, config: CacheConfig) -> Cache:
    used = (cache.pool.ref_count > 0) & (cache.pool.ref_count < GUARD_COUNT)
    nth = jnp.cumsum(used) - 1
    place = jnp.where(used, 2 * nth + 1 if config.debug else nth, config.physical_blocks)
    source = (
        jnp.full(config.physical_blocks, -1)
        .at[place]
        .set(jnp.arange(cache.num_blocks), mode="drop")
    )
    table = jnp.where(cache.table == NO_BLOCK, NO_BLOCK, place[jnp.maximum(cache.table, 0)])
    table = fit_slots(table.astype(jnp.int32), config.num_slots, NO_BLOCK)
    more_blocks = config.num_blocks > jnp.sum(cache.pool.ref_count < GUARD_COUNT)
    more_context = config.max_context > cache.max_context
    more_slots = config.num_slots > cache.num_slots
    lifted = jnp.where(more_blocks, OUT_OF_BLOCKS, 0) | (CONTEXT_FULL if more_context else 0)
    return cache.replace(
        pool=_move_pool(cache.pool, source, config.debug),
        table=fit_slots(table.T, config.max_blocks, NO_BLOCK).T,
        length=fit_slots(cache.length, config.num_slots),
        alive=fit_slots(cache.alive, config.num_slots),
        error=fit_slots(cache.error & ~lifted, config.num_slots),
        misuse=cache.misuse & ~(OUT_OF_SLOTS if more_slots else 0),
        blocks_short=jnp.where(more_blocks, 0, cache.blocks_short),
        max_context=config.max_context,
    )


def _move_pool(pool: KVPool, source: Array, debug: bool) -> KVPool:
    """A pool whose block i is block source[i] of this one, or free where that is negative."""
    taken, block = source >= 0, jnp.maximum(source, 0)
    moved = KVPool(
        groups=tuple(group.gather(source) for group in pool.groups),
        tokens=jnp.where(taken[:, None], pool.tokens[block], 0),
        ref_count=jnp.where(taken, pool.ref_count[block], 0),
    )
    return plant_guards(moved) if debug else moved
