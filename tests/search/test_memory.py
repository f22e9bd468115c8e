"""A compiled search holds one pool of keys and values: it copies blocks, never the pool."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dendrite_jax import engine, search
from dendrite_jax.cache import CacheConfig, block_bytes
from dendrite_jax.engine import State, StopRules
from dendrite_jax.search import BeamSearchConfig, MctsConfig, SampleThoughts, TreeOfThoughtsConfig
from dendrite_jax.testing import BigramModel
from engine.programs import LANES, bigram

# A pool far larger than everything else: keys and values of 64 MiB.
LARGE = CacheConfig(num_blocks=8192, num_slots=128, max_context=64)
KV_SHAPE = {"num_layers": 2, "num_kv_heads": 2, "head_dim": 16}
POOL_BYTES = LARGE.num_blocks * block_bytes(dtype=jnp.float32, **KV_SHAPE)


class WideModel(BigramModel):
    """A bigram model that asks for a cache as large as a decoder's."""

    @property
    def kv_shape(self) -> dict[str, int]:
        return KV_SHAPE


MODEL = WideModel(bigram().table)


def beams(state: State, roots: jax.Array) -> tuple[State, Any]:
    config = BeamSearchConfig(width=4, max_new_tokens=8)
    return search.beam_search(MODEL, state, roots, None, config, stop_tokens=jnp.array([1]))


def thoughts(state: State, roots: jax.Array) -> tuple[State, Any]:
    config = TreeOfThoughtsConfig(breadth=2, proposals=6, depth=3)
    expand = SampleThoughts(4, StopRules.of([1]))
    key, commit = jax.random.key(0), jnp.array([1, 2])
    return search.tree_of_thoughts(MODEL, state, roots, key, config, expand=expand, commit=commit)


def walks(state: State, roots: jax.Array) -> tuple[State, Any]:
    config = MctsConfig(num_simulations=12, num_children=4, num_expansions=6, batch=2)
    expand = SampleThoughts(4, StopRules.of([1]))
    key, commit = jax.random.key(0), jnp.array([1, 2])
    return search.mcts(MODEL, state, roots, key, config, expand=expand, commit=commit)


@pytest.mark.parametrize("run", [beams, thoughts, walks])
def test_a_search_holds_one_pool(run: Any) -> None:
    state = jax.eval_shape(lambda: engine.init(MODEL, LARGE))
    roots = jax.ShapeDtypeStruct((LANES,), jnp.int32)
    memory = jax.jit(run, donate_argnums=0).lower(state, roots).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes > POOL_BYTES
    assert memory.temp_size_in_bytes < POOL_BYTES / 50
