"""Roots that no search can grow from: empty prompts, and prompts that found no room."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import cache as kv
from dendrite_jax.cache.state import CONTEXT_FULL, EMPTY_BRANCH, STALE_BRANCH
from dendrite_jax.search import NO_NODE
from dendrite_jax.search.outcome import COMPLETE, EMPTY_PROMPT, NO_ROOM, STALE_ROOT
from dendrite_jax.search.session import check_roots
from engine.programs import LANES, bigram, pad, start, truncate
from search.every_search import model_of, program
from search.programs import CACHE

pytestmark = pytest.mark.slow

PROMPTS = [[1], [2, 3], [4], [5]]


@pytest.mark.parametrize("name", ["beam_search", "sample", "depth_first", "mcts"])
def test_a_root_without_a_prompt_is_flagged_and_the_others_are_searched(name: str) -> None:
    run = jax.jit(program(name), donate_argnums=0)
    keys = jax.random.split(jax.random.key(0), LANES)
    state, ids = start(model_of(name), PROMPTS, config=CACHE)
    _, plenty = run(state, jnp.asarray(ids), keys)
    state, ids = start(model_of(name), [*PROMPTS[:2], [], PROMPTS[3]], config=CACHE)
    state, found = run(state, jnp.asarray(ids), keys)
    assert found.at_capacity.tolist() == [False] * LANES
    assert np.all(np.asarray(found.answers[2]) == NO_NODE)
    assert np.all(np.asarray(found.tree.parent[2]) == NO_NODE)
    for problem in (0, 1, 3):
        np.testing.assert_array_equal(found.tokens[problem], plenty.tokens[problem])
        np.testing.assert_array_equal(found.values[problem], plenty.values[problem])
    with pytest.raises(kv.BranchError, match="a root without a token: its prompt is empty"):
        kv.raise_errors(state.cache)

    state, ids = start(model_of(name), [*PROMPTS[:2], [], PROMPTS[3]], config=CACHE)
    error = state.cache.error.at[ids[2]].set(CONTEXT_FULL)  # as a prompt leaves it that is too long
    state = state.replace(cache=state.cache.replace(error=error))
    state, found = run(state, jnp.asarray(ids), keys)
    assert found.at_capacity.tolist() == [False, False, True, False]
    assert np.all(np.asarray(found.answers[2]) == NO_NODE)
    with pytest.raises(kv.CapacityError, match="max_context is 24"):
        kv.raise_errors(state.cache)


def test_a_root_that_was_cut_is_refused_and_one_that_found_no_room_keeps_its_reason() -> None:
    state, ids = start(bigram(), [[1], [2, 3], [], []], config=CACHE)
    state, _ = truncate(state, pad(ids[1:2]), pad([1]))
    error = state.cache.error.at[ids[3]].set(CONTEXT_FULL)
    state = state.replace(cache=state.cache.replace(error=error))
    state, roots, outcome = check_roots(state, jnp.asarray(ids))
    assert roots.tolist() == [ids[0], -1, -1, ids[3]]
    assert outcome.tolist() == [COMPLETE, STALE_ROOT, EMPTY_PROMPT, NO_ROOM]
    assert state.cache.misuse == EMPTY_BRANCH | STALE_BRANCH
