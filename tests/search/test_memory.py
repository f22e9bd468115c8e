"""A compiled search holds one pool of keys and values: it copies blocks, never the pool."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array

from dendrite_jax import engine, search
from dendrite_jax.cache import Appended, CacheConfig, KVPool, KVShape, block_bytes, uniform_shape
from dendrite_jax.engine import State, StopRules
from dendrite_jax.search import BeamSearchConfig, RewardModel, SampleThoughts, ValueTokens
from dendrite_jax.testing import BigramModel
from engine.programs import LANES, bigram
from search.every_search import A_KIND_OF_LOOP, THOUGHT_SEARCHES

pytestmark = pytest.mark.slow

# A pool far larger than everything else: keys and values of 64 MiB.
LARGE = CacheConfig(num_blocks=8192, num_slots=128, max_context=64)
KV_SHAPE = uniform_shape(num_layers=2, num_kv_heads=2, head_dim=16)
POOL_BYTES = LARGE.num_blocks * block_bytes(KV_SHAPE, dtype=jnp.float32)


class WideModel(BigramModel):
    """A bigram model with a cache as large as a decoder's, which it reads, so that XLA keeps it."""

    @property
    def kv_shape(self) -> KVShape:
        return KV_SHAPE

    def forward(self, pool: KVPool, appended: Appended, tokens: Array) -> tuple[KVPool, Array]:
        pool, hidden = super().forward(pool, appended, tokens)
        return pool, hidden + sum(array[0, 0, 0, 0, 0] for array in pool.groups[0].arrays.values())


MODEL = WideModel(bigram().table)


def program(name: str, state: State, roots: Array) -> tuple[State, Any]:
    key = jax.random.key(0)
    if name == "beam_search":
        config = BeamSearchConfig(width=4, max_new_tokens=8)
        return search.beam_search(MODEL, state, roots, key, config, stop_tokens=jnp.array([1]))
    expand, commit = SampleThoughts(4, StopRules.of([1])), jnp.array([1, 2])
    bound = THOUGHT_SEARCHES[name].bound()
    return bound(MODEL, state, roots, key, expand=expand, commit=commit)


@pytest.mark.parametrize("name", A_KIND_OF_LOOP)
def test_a_search_holds_one_pool(name: str) -> None:
    state = jax.eval_shape(lambda: engine.init(MODEL, LARGE))
    roots = jax.ShapeDtypeStruct((LANES,), jnp.int32)
    run = jax.jit(partial(program, name), donate_argnums=0)
    memory = run.lower(state, roots).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes > POOL_BYTES
    assert memory.temp_size_in_bytes < POOL_BYTES / 50


@pytest.mark.parametrize("name", A_KIND_OF_LOOP)
def test_a_vmapped_search_copies_no_pool(name: str) -> None:
    """One search a kind of loop; a loop of which each mapped one ends for itself would copy all."""
    mapped = 2
    one = jax.eval_shape(lambda: engine.init(MODEL, LARGE))
    states = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((mapped, *leaf.shape), leaf.dtype), one)
    roots = jax.ShapeDtypeStruct((mapped, LANES), jnp.int32)
    run = jax.jit(jax.vmap(partial(program, name)), donate_argnums=0)
    memory = run.lower(states, roots).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes > mapped * POOL_BYTES
    assert memory.temp_size_in_bytes < mapped * POOL_BYTES / 50


def test_a_reward_model_holds_one_pool_more() -> None:
    state = jax.eval_shape(lambda: engine.init(MODEL, LARGE))
    roots = jax.ShapeDtypeStruct((LANES,), jnp.int32)
    scorer = RewardModel(MODEL, ValueTokens.of([1, 2], [1.0, 0.0]))
    expand = SampleThoughts(4, StopRules.of([1]))

    def run(state: State, roots: Array) -> tuple[State, Any]:
        bound = THOUGHT_SEARCHES["depth_first"].bound()
        return bound(MODEL, state, roots, jax.random.key(0), expand=expand, score=scorer)

    memory = jax.jit(run, donate_argnums=0).lower(state, roots).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes > POOL_BYTES
    assert POOL_BYTES < memory.temp_size_in_bytes < 1.05 * POOL_BYTES
