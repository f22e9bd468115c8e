"""A reward model whose own cache is too small: the search says so, whoever's room ran out."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import State
from dendrite_jax.search import NO_NODE, RewardModel, SampleThoughts, ValueTokens
from engine.programs import LANES, bigram
from search.every_search import THOUGHT_SEARCHES

pytestmark = pytest.mark.slow

# The roots share the 40 blocks of one prompt; the reward model runs the prompt for each of them,
# so that the last one finds no room among its 159 blocks.
PROMPT = jnp.arange(160)[None] % 11
CACHE = CacheConfig(num_blocks=159, num_slots=120, max_context=200, block_size=4)
REWARD = RewardModel(bigram(), ValueTokens.of([1, 2], [1.0, 0.5]))


def found(name: str, config: CacheConfig, **pieces: Any) -> Any:
    model = bigram()
    expand = SampleThoughts(4, any_end=True)
    bound = partial(THOUGHT_SEARCHES[name].bound(), expand=expand, **pieces)

    def run(key: jax.Array) -> Any:
        state: State = engine.init(model, config)
        state, branch = engine.open_branches(state, key[None])
        state, _ = engine.prefill(model, state, branch, PROMPT, jnp.array([PROMPT.shape[1]]))
        state, roots = engine.fork(state, jnp.repeat(branch, LANES))
        return bound(model, state, roots, jax.random.split(key, LANES))[1]

    return jax.device_get(jax.jit(run)(jax.random.key(0)))


@pytest.mark.parametrize("name", ["dvts", "depth_first", "mcts"])
def test_a_thought_that_the_reward_model_cannot_hold_is_at_capacity(name: str) -> None:
    assert not np.any(found(name, CACHE).at_capacity)
    short = found(name, CACHE, score=REWARD)
    assert short.at_capacity[-1]
    assert np.all(short.answers[-1] == NO_NODE)
    assert np.any(short.answers[0] != NO_NODE)
