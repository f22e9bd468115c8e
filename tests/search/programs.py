"""Searches compiled once, over one shape of cache and LANES problems."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from dendrite_jax import cache as kv
from dendrite_jax import search
from dendrite_jax.cache import Cache, CacheConfig, debug
from dendrite_jax.engine import Model, State
from engine.programs import LANES, fork, free, pad, run_prefill, start

CACHE = CacheConfig(num_blocks=160, num_slots=120, max_context=24, block_size=4, debug=True)

depth_first = jax.jit(search.depth_first, static_argnames="config", donate_argnums=1)
step_beam = jax.jit(search.step_beam, static_argnames="config", donate_argnums=1)
dvts = jax.jit(search.dvts, static_argnames="config", donate_argnums=1)
rebase = jax.jit(search.rebase, static_argnames="config", donate_argnums=1)
best_of_n = jax.jit(search.best_of_n, static_argnames="config", donate_argnums=1)
sample = jax.jit(search.sample, static_argnames="config", donate_argnums=1)
beam_search = jax.jit(search.beam_search, static_argnames="config", donate_argnums=1)
tree_of_thoughts = jax.jit(search.tree_of_thoughts, static_argnames="config", donate_argnums=1)
_usage = jax.jit(lambda state: (debug.violations(state.cache), kv.stats(state.cache)))


def assert_only_roots_held(state: State, roots: np.ndarray) -> None:
    """Checks that a search gave back all but its roots, and broke nothing."""
    held = np.flatnonzero(state.cache.alive)
    assert set(held) == set(np.asarray(roots)[np.asarray(roots) >= 0])
    length = np.asarray(state.cache.length)[held]
    found, stats = jax.device_get(_usage(state))
    assert not any(vars(found).values()), found
    assert stats.blocks_used == np.sum(-(-length // CACHE.block_size))
    assert stats.blocks_free == CACHE.num_blocks - stats.blocks_used
    assert state.cache.misuse == 0
    state = free(state, pad(roots, width=len(roots)))
    assert int(np.sum(np.asarray(state.cache.pool.ref_count) == 0)) == CACHE.num_blocks


def occupied(
    model: Model,
    prompts: Sequence[Sequence[int]],
    free_blocks: int = CACHE.num_blocks,
    free_slots: int = CACHE.num_slots,
) -> tuple[State, np.ndarray]:
    """LANES roots of under a block each, and other branches that leave only so much free."""
    state, ids = start(model, prompts, config=CACHE)
    slots, blocks = CACHE.num_slots - LANES, CACHE.num_blocks - LANES
    while blocks > free_blocks:
        taken = [min(4, max(0, blocks - free_blocks - 4 * lane)) for lane in range(LANES)]
        fills = [[0] * (4 * n - len(root)) for n, root in zip(taken, prompts, strict=True)]
        state, fillers = fork(state, ids)
        state, _ = run_prefill(model, state, fillers, fills)
        blocks, slots = blocks - sum(taken), slots - LANES
    while slots > free_slots:
        count = min(LANES, slots - free_slots)
        state, _ = fork(state, pad(ids[:count]))
        slots -= count
    stats = jax.device_get(_usage(state))[1]
    assert stats.blocks_free == min(free_blocks, CACHE.num_blocks - LANES)
    assert stats.branches == CACHE.num_slots - slots
    return state, ids


def assert_unchanged(before: Cache, state: State) -> None:
    """Checks that a search left every branch that was there as it was, and nothing else."""
    after = jax.device_get(state.cache)
    np.testing.assert_array_equal(after.alive, before.alive)
    np.testing.assert_array_equal(after.table, before.table)
    np.testing.assert_array_equal(after.length, before.length)
    np.testing.assert_array_equal(after.error, before.error)
    np.testing.assert_array_equal(after.pool.ref_count, before.pool.ref_count)
    held = before.pool.ref_count > 0
    np.testing.assert_array_equal(after.pool.tokens[held], before.pool.tokens[held])
    found = jax.device_get(_usage(state))[0]
    assert not any(vars(found).values()), found
