"""One trace for any number of forks, and no copy of the pool in a compiled loop."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cache.harness import HEAD_DIM, LANES, TOKENS, Harness, write
from dendrite_jax import cache as kv
from dendrite_jax.cache import Cache, CacheConfig

# A pool far larger than everything else: keys and values of 64 MiB.
LARGE = CacheConfig(num_blocks=8192, num_slots=8, max_context=64)
LARGE_SHAPE = kv.uniform_shape(num_layers=2, num_kv_heads=16, head_dim=HEAD_DIM)
NEW = 2
"""Tokens a lane in an append of the loop: more than one, so that refusing lanes is a loop too."""
POOL_BYTES = 8192 * kv.block_bytes(LARGE_SHAPE, dtype=jnp.float32)


def test_a_thousand_forks_are_one_trace() -> None:
    traces = 0

    def fork_and_free(cache: Cache, parents: jax.Array) -> Cache:
        nonlocal traces
        traces += 1
        cache, children = kv.fork(cache, parents)
        cache, _ = kv.truncate(cache, children, jnp.zeros_like(children))
        cache, parts = kv.fork(kv.free(cache, children), parents, length=jnp.ones_like(parents))
        return kv.free(cache, parts)

    harness = Harness()
    first, second = harness.open(2)
    harness.append({first: 1, second: 6})
    cache, step = harness.cache, jax.jit(fork_and_free, donate_argnums=0)
    for number in range(1000):
        cache = step(cache, np.array([(first, second)[number % 2], -1, second, first]))
    assert traces == 1
    assert cache.ledger.totals()["forks"] == 6000
    assert cache.ledger.totals()["reused"] == 500 * (1 + 6 + 1) + 500 * (6 + 6 + 1) + 3000


def test_new_lengths_tables_and_ids_are_no_new_trace() -> None:
    traces = 0

    def counted(cache: Cache, ids: jax.Array, tokens: jax.Array, count: jax.Array) -> Cache:
        nonlocal traces
        traces += 1
        return kv.append(cache, ids, tokens, count)[0]

    append = jax.jit(counted, donate_argnums=0)
    harness = Harness()
    ids, cache = harness.open(LANES), harness.cache
    for count in range(TOKENS):
        tokens = np.full((LANES, TOKENS), count)
        cache = append(cache, np.roll(ids, count), tokens, np.full(LANES, count % 3))
    assert traces == 1


def loop(cache: Cache, ids: jax.Array, steps: jax.Array) -> Cache:
    """Forks, appends with copies on write, writes, cuts and frees, as a search does."""

    def body(carry: tuple[jax.Array, Cache]) -> tuple[jax.Array, Cache]:
        step, cache = carry
        cache, children = kv.fork(cache, ids)
        tokens = jnp.full((ids.shape[0], NEW), step)
        cache, appended = kv.append(cache, children, tokens, jnp.full_like(ids, NEW))
        cache = cache.replace(pool=write(cache.pool, appended, tokens))
        cache, _ = kv.truncate(cache, children, jnp.ones_like(ids))
        cache, parts = kv.fork(cache, children, length=jnp.zeros_like(ids))
        return step + 1, kv.free(kv.free(cache, children), parts)

    return jax.lax.while_loop(lambda carry: carry[0] < steps, body, (jnp.int32(0), cache))[1]


def loop_that_copies(cache: Cache, ids: jax.Array, steps: jax.Array) -> tuple[Cache, Cache]:
    """The same loop by a caller who keeps the cache from before it."""
    return loop(cache, ids, steps), cache


def extra_bytes(function: Callable[..., object], cache: Cache) -> int:
    """Bytes that a compiled loop holds beyond its arguments."""
    ids, steps = jax.ShapeDtypeStruct((4,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    memory = (
        jax.jit(function, donate_argnums=0).lower(cache, ids, steps).compile().memory_analysis()
    )
    assert memory is not None
    assert memory.argument_size_in_bytes > POOL_BYTES
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def test_a_compiled_loop_updates_the_pool_in_place() -> None:
    cache = jax.eval_shape(lambda: kv.init(LARGE, LARGE_SHAPE))
    assert extra_bytes(loop, cache) < POOL_BYTES / 100
    assert extra_bytes(loop_that_copies, cache) > POOL_BYTES / 2


def test_a_mapped_loop_updates_the_pools_in_place() -> None:
    one = jax.eval_shape(lambda: kv.init(LARGE, LARGE_SHAPE))
    two = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), one)
    mapped = jax.vmap(loop, in_axes=(0, None, None))
    assert extra_bytes(mapped, two) < POOL_BYTES / 100
