"""A compiled generation holds one pool of keys and values, mapped over states too."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from dendrite_jax import engine
from dendrite_jax.cache import Appended, CacheConfig, KVPool, KVShape, block_bytes, uniform_shape
from dendrite_jax.engine import GenerateConfig, Generated, Round, Sampling, State, StopRules
from dendrite_jax.grammar import CompiledGrammar
from dendrite_jax.testing import BigramModel
from engine.constraint_programs import model, regex
from engine.programs import LANES, bigram, pad, start

pytestmark = pytest.mark.slow

KV_SHAPE = uniform_shape(num_layers=2, num_kv_heads=2, head_dim=16)
STATES = 4


class WideModel(BigramModel):
    """A bigram model with a cache as large as a decoder's, which it reads, so that XLA keeps it."""

    @property
    def kv_shape(self) -> KVShape:
        return KV_SHAPE

    def forward(self, pool: KVPool, appended: Appended, tokens: Array) -> tuple[KVPool, Array]:
        pool, hidden = super().forward(pool, appended, tokens)
        return pool, hidden + sum(array[0, 0, 0, 0, 0] for array in pool.groups[0].arrays.values())


MODEL = WideModel(model().table)
EVERYTHING = GenerateConfig(8, top_logprobs=2, return_hidden=True, fast_forward=2)


def grow(
    table: CompiledGrammar | None, config: GenerateConfig, state: State, ids: Array, limit: Array
) -> tuple[State, Generated]:
    if table is not None:
        state = engine.constrain(state, ids, table)
    sampling = Sampling(1.1, 0.9, 3, 0.9, 0.1)
    stop = StopRules.of([1], limit=limit)
    return engine.generate(MODEL, state, ids, config, sampling, stop, until=Round(3, 6))


def temporary_bytes(num_blocks: int, table: CompiledGrammar | None, config: GenerateConfig) -> int:
    """Of `grow` mapped over states of `num_blocks` blocks each."""
    cache = CacheConfig(num_blocks=num_blocks, num_slots=16, max_context=64)
    pools = STATES * num_blocks * block_bytes(KV_SHAPE, dtype=jnp.float32)
    state = jax.eval_shape(lambda: jax.vmap(lambda _: engine.init(MODEL, cache))(jnp.zeros(STATES)))
    lanes = jax.ShapeDtypeStruct((STATES, LANES), jnp.int32)
    run = jax.jit(jax.vmap(partial(grow, table, config)), donate_argnums=0)
    memory = run.lower(state, lanes, lanes).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes > pools
    return memory.temp_size_in_bytes


@pytest.mark.parametrize("constrained", [False, True])
def test_memory_of_a_mapped_generation_does_not_grow_with_the_pool(constrained: bool) -> None:
    table = regex("(ab|abc)+") if constrained else None
    config = EVERYTHING if constrained else GenerateConfig(8)
    small, large = (temporary_bytes(blocks, table, config) for blocks in (64, 2048))
    pool = 2048 * block_bytes(KV_SHAPE, dtype=jnp.float32)
    assert large - small < pool / 50


def test_states_that_have_ended_idle_while_others_run() -> None:
    """Mapped over states of other lengths, each is as it would be alone, its ledger included."""
    small = bigram()
    prompts = [[[1], [2, 3]], [[4]], [[5], [6], [7, 8]], [[9, 10]]]
    limits = [[2, 1], [9], [0, 0, 0], [5]]
    rows = [
        (*start(small, prompt, seed), limit)
        for seed, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]
    lanes = np.stack([pad(ids[: len(limit)]) for _, ids, limit in rows])
    stop = np.stack([pad(limit, 0) for limit in limits])
    states = [jax.device_get(state) for state, _, _ in rows]

    def run(state: State, ids: Array, limit: Array) -> tuple[State, Generated]:
        rules = StopRules.of([0], limit=limit)
        return engine.generate(small, state, ids, GenerateConfig(12), stop=rules)

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    together: Any = jax.device_get(jax.jit(jax.vmap(run))(stacked, lanes, stop))
    alone = jax.jit(run)
    for row, state in enumerate(states):
        expected = jax.device_get(alone(state, lanes[row], stop[row]))
        found = jax.tree.map(lambda leaf, row=row: leaf[row], together)
        assert found[0].cache.ledger.totals() == expected[0].cache.ledger.totals()
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_a_mapped_prefill_in_chunks_and_cuts_hold_one_pool() -> None:
    cache = CacheConfig(num_blocks=8192, num_slots=16, max_context=64)
    pools = STATES * cache.num_blocks * block_bytes(KV_SHAPE, dtype=jnp.float32)
    state = jax.eval_shape(lambda: jax.vmap(lambda _: engine.init(MODEL, cache))(jnp.zeros(STATES)))
    lanes = jax.ShapeDtypeStruct((STATES, LANES), jnp.int32)
    tokens = jax.ShapeDtypeStruct((STATES, LANES, 48), jnp.int32)

    def run(state: State, ids: Array, tokens: Array, count: Array) -> State:
        state, _ = engine.prefill(MODEL, state, ids, tokens, count, chunk=16)
        state, children = engine.fork(state, ids, count // 2)
        state, _ = engine.truncate(state, ids, count - 1)
        state, _ = engine.rewind(MODEL, state, children)
        return state

    mapped = jax.jit(jax.vmap(run), donate_argnums=0)
    memory = mapped.lower(state, lanes, tokens, lanes).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes > pools
    assert memory.temp_size_in_bytes < pools / 50
