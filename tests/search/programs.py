"""Searches compiled once, over one shape of cache and LANES problems."""

from __future__ import annotations

import jax
import numpy as np

from dendrite_jax import cache as kv
from dendrite_jax import search
from dendrite_jax.cache import CacheConfig, debug
from dendrite_jax.engine import State
from engine.programs import free, pad
from fast_jit import fast_jit

CACHE = CacheConfig(num_blocks=160, num_slots=120, max_context=24, block_size=4, debug=True)

beam_search = fast_jit(search.beam_search, static_argnames="config", donate_argnums=1)
tree_of_thoughts = fast_jit(search.tree_of_thoughts, static_argnames="config", donate_argnums=1)
_usage = fast_jit(lambda state: (debug.violations(state.cache), kv.stats(state.cache)))


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
