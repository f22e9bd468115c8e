"""Every search with too few blocks or slots: it gives all back, and says that it was short."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_jax.cache.state import OUT_OF_SLOTS
from dendrite_jax.engine import State
from dendrite_jax.search import SearchResult
from engine.programs import LANES
from search.every_search import EVERY_SEARCH, model_of, program
from search.programs import CACHE, assert_unchanged, occupied

pytestmark = pytest.mark.slow

PROMPTS = [[1], [2, 3], [4, 5, 6], [7]]


@cache
def compiled(name: str) -> Any:
    return jax.jit(program(name), donate_argnums=0)


def run(name: str, free_blocks: int, free_slots: int) -> tuple[SearchResult, State]:
    """The result and the state after it, which holds what it held before."""
    state, ids = occupied(model_of(name), PROMPTS, free_blocks, free_slots)
    before = jax.device_get(state.cache)
    state, found = compiled(name)(state, ids, jax.random.split(jax.random.key(1), LANES))
    assert_unchanged(before, state)
    return jax.device_get(found), state


@cache
def with_room(name: str) -> SearchResult:
    found, state = run(name, CACHE.num_blocks, CACHE.num_slots)
    assert int(state.cache.misuse) == 0
    assert not np.any(found.at_capacity)
    return found


@pytest.mark.parametrize("name", EVERY_SEARCH)
@given(free_blocks=st.integers(0, 40), free_slots=st.integers(0, 60))
@settings(max_examples=12)
def test_a_problem_finds_all_that_it_would_or_says_that_it_was_short(
    name: str, free_blocks: int, free_slots: int
) -> None:
    found, state = run(name, free_blocks, free_slots)
    assert int(state.cache.misuse) in (0, OUT_OF_SLOTS)
    assert np.all(np.isfinite(found.values) == (found.answers >= 0))
    plenty = with_room(name)
    for problem in range(LANES):
        if not found.at_capacity[problem]:
            for field in ("answers", "values", "tokens", "length"):
                ours, theirs = getattr(found, field), getattr(plenty, field)
                np.testing.assert_array_equal(ours[problem], theirs[problem])
            for field in vars(plenty.tree):
                ours, theirs = getattr(found.tree, field), getattr(plenty.tree, field)
                np.testing.assert_array_equal(ours[problem], theirs[problem])


@pytest.mark.parametrize("name", EVERY_SEARCH)
def test_without_any_room_every_problem_says_so(name: str) -> None:
    found, _ = run(name, CACHE.num_blocks, 0)
    assert np.all(found.at_capacity)
    assert np.all(found.answers < 0)
