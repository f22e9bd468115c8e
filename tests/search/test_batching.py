"""Problems in one batch, under vmap and alone: the same search, one trace, no visit to the host."""

from __future__ import annotations

from functools import cache
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.engine import NO_TOKEN, State
from dendrite_jax.search import SearchResult, TreeOfThoughtsConfig
from dendrite_jax.search.levels.loop import start as start_thoughts
from dendrite_jax.search.protocol import Pieces
from engine.programs import LANES, bigram, start
from search.every_search import A_KIND_OF_LOOP, DISTINCT_SEARCHES, EXPAND, model_of, program
from search.programs import CACHE, assert_only_roots_held

pytestmark = pytest.mark.slow

PROMPTS = [[1], [2, 3, 4], [5, 6], [7, 8, 9, 10, 1]]
THOUGHTS = TreeOfThoughtsConfig(breadth=2, proposals=5, depth=3)
SEARCHES = pytest.mark.parametrize("name", DISTINCT_SEARCHES)


def problem_keys(seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), LANES)


@cache
def batched(name: str) -> Any:
    """What each problem finds in one batch."""
    state, ids = start(model_of(name), PROMPTS, config=CACHE)
    state, found = jax.jit(program(name), donate_argnums=0)(state, ids, problem_keys())
    assert_only_roots_held(state, ids)
    return by_problem(found)


def by_problem(found: Any) -> Any:
    """The fields that have an entry for each problem."""
    if isinstance(found, SearchResult):
        found = found.replace(ledger=None, peak_blocks=None)
    return jax.device_get(found)


def assert_same(found: Any, expected: Any) -> None:
    """Bitwise equal leaves: every lane computes the same numbers in the same order."""
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def problem(found: Any, number: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[number : number + 1], found)


@SEARCHES
def test_the_problems_are_different(name: str) -> None:
    found = batched(name)
    tokens = found.tree.tokens
    assert len({row.tobytes() for row in tokens}) == LANES
    assert np.any(tokens != NO_TOKEN, axis=tuple(range(1, tokens.ndim))).all()


@SEARCHES
def test_alone_each_problem_finds_the_same_in_one_trace_without_the_host(name: str) -> None:
    traces = 0

    def counted(state: State, roots: jax.Array, keys: jax.Array) -> tuple[State, Any]:
        nonlocal traces
        traces += 1
        return program(name)(state, roots, keys)

    alone = jax.jit(counted, donate_argnums=0)
    keys = problem_keys()
    for number in range(LANES):
        order = np.roll(np.arange(LANES), number + 1)  # another slot, other neighbours
        state, ids = start(model_of(name), [PROMPTS[n] for n in order], config=CACHE)
        slot = ids[order.tolist().index(number)]
        root, key = jax.device_put(np.array([slot])), keys[np.array([number])]
        with jax.transfer_guard("disallow"):
            state, found = alone(state, root, key)
        assert_same(by_problem(found), problem(batched(name), number))
        assert_only_roots_held(state, ids)
    assert traces == 1


@pytest.mark.parametrize("name", A_KIND_OF_LOOP)
def test_vmap_over_states_is_a_loop_over_them(name: str) -> None:
    pairs = []
    for first in (0, 2):
        prompts = [*PROMPTS[first : first + 2], [0], [0]]
        pairs.append(start(model_of(name), prompts, config=CACHE))
    states, ids = zip(*pairs, strict=True)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    roots = np.stack(ids)[:, :2]
    keys = problem_keys().reshape(2, 2)
    after, found = jax.jit(jax.vmap(program(name)))(stacked, roots, keys)
    found = by_problem(found)
    flat = jax.tree.map(lambda leaf: leaf.reshape(LANES, *leaf.shape[2:]), found)
    assert_same(flat, batched(name))
    for number in range(2):
        assert_only_roots_held(jax.tree.map(itemgetter(number), after), ids[number])


def test_one_key_is_split_among_the_problems() -> None:
    state, ids = start(bigram(), PROMPTS, config=CACHE)
    begin = jax.jit(start_thoughts, static_argnums=4)
    pieces = Pieces(EXPAND)
    with_one = begin(pieces, state, ids, jax.random.key(5), THOUGHTS)
    keys = jax.random.split(jax.random.key(5), LANES)
    with_each = begin(pieces, state, ids, keys, THOUGHTS)
    assert_same(jax.device_get(with_one.state.key), jax.device_get(with_each.state.key))
    assert len(np.unique(np.asarray(with_one.state.key)[ids], axis=0)) == LANES
