"""No loop of a search reads or carries an array of size zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dendrite_jax import engine, search
from dendrite_jax.cache import CacheConfig
from dendrite_jax.search import AnswerTokens, SampleThoughts
from engine.programs import bigram
from jaxprs import loops_of
from search.every_search import BEAMS, EVERY_SEARCH, THOUGHT_SEARCHES

CACHE = CacheConfig(num_blocks=8, num_slots=40, max_context=32, block_size=4)
NOTHING = jnp.zeros(0, jnp.int32)


@pytest.mark.parametrize("name", EVERY_SEARCH)
def test_no_loop_reads_or_carries_an_array_of_size_zero(name: str) -> None:
    """jaxlib 0.11's partitioner dies on one under `jax.shard_map`; here nothing ends a text."""
    model = bigram()
    state = jax.eval_shape(lambda: engine.init(model, CACHE))
    roots, keys = jnp.arange(2), jax.random.split(jax.random.key(0), 2)

    def run(state: Any, ends: Any) -> Any:
        if name == "beam_search":
            return search.beam_search(model, state, roots, None, BEAMS, stop_tokens=ends)
        scorer = AnswerTokens(None, ends)
        bound = THOUGHT_SEARCHES[name].bound()
        return bound(model, state, roots, keys, expand=SampleThoughts(4), score=scorer)

    loops = list(loops_of(jax.make_jaxpr(run)(state, NOTHING).jaxpr))
    assert loops
    for loop in loops:
        assert all(var.aval.size for var in (*loop.invars, *loop.outvars))
