"""Keeping a tree for the next move: branches, records and statistics, against plain Python."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine
from dendrite_jax.cache import debug
from dendrite_jax.engine import NO_TOKEN, StopRules
from dendrite_jax.search import NO_NODE, ROOT, MctsConfig, SampleThoughts, SearchResult, Uct
from dendrite_jax.search.monte_carlo import (
    MctsLoop,
    MctsPieces,
    most_visited,
    read,
    reroot,
    unfinished,
)
from dendrite_jax.search.monte_carlo import advance as advance_search
from dendrite_jax.search.monte_carlo import finish as finish_search
from dendrite_jax.search.monte_carlo import start as start_search
from engine.generation_oracle import Stops
from engine.programs import LANES, bigram, branch_tokens, pad, start
from engine.sampling_oracle import Knobs
from search.judge import Judge
from search.monte_carlo.oracle import Search
from search.monte_carlo.programs import replay, share
from search.programs import CACHE

pytestmark = pytest.mark.slow

CONFIG = MctsConfig(
    num_simulations=10,
    num_children=3,
    num_expansions=4,
    tree_expansions=9,
    max_depth=6,
    num_answers=3,
    rule=Uct(0.5),
)
MODEL = bigram()
PROMPTS = [[1], [2, 3], [4, 5], [7]]
JUDGE = Judge.of(weight=7, merge=1000, reject=101, answer=-1)
COMMIT = (4, 1)
EXPAND = SampleThoughts(2, StopRules.of([0, 8]), any_end=True)
PIECES = MctsPieces(EXPAND, JUDGE, worth=share, commit=jnp.array(COMMIT))


@partial(jax.jit, donate_argnums=0)
def advance(loop: MctsLoop) -> MctsLoop:
    """Runs a search to its end."""

    return jax.lax.while_loop(unfinished, partial(advance_search, MODEL, PIECES), loop)


begin = jax.jit(partial(start_search, PIECES), static_argnames="config", donate_argnums=0)
move_root = jax.jit(partial(reroot, PIECES), donate_argnums=0)
favourite = jax.jit(most_visited)
look = jax.jit(partial(read, PIECES))
finish = jax.jit(partial(finish_search, PIECES))
violations = jax.jit(debug.violations)


def searched(keys: jax.Array) -> tuple[MctsLoop, np.ndarray, list[Search]]:
    """A finished first search, the callers' roots, and its replays."""
    state, ids = start(MODEL, PROMPTS, config=CACHE)
    loop = advance(begin(state, jnp.asarray(ids), keys, config=CONFIG))
    words = np.asarray(jax.random.key_data(keys))
    replays = []
    for problem, prompt in enumerate(PROMPTS):
        expected = replay(
            prompt, words[problem], CONFIG, 2, Knobs(), Stops((0, 8)), JUDGE, COMMIT, any_end=True
        )
        expected.run()
        replays.append(expected)
    return loop, ids, replays


def assert_read(found: SearchResult, problem: int, expected: Search) -> None:
    """The record is that of plain Python, paths counted from the present root."""
    depth = expected.root.payload.depth
    for node in expected.nodes():
        row, thought = (problem, node.number), node.payload
        assert found.tree.visits[row] == node.visits
        assert found.tree.depth[row] == thought.depth - depth
        assert found.tree.parent[row] == (node.parent.number if node.parent else NO_NODE)
        tokens = [] if node.parent is None else thought.tokens
        assert found.tree.tokens[row].tolist() == pad(tokens, NO_TOKEN, 2).tolist()
    used = len(expected.nodes())
    assert np.all(found.tree.parent[problem, used:] == NO_NODE)
    assert np.all(found.tree.visits[problem, used:] == 0)


def assert_held(loop: MctsLoop, ids: np.ndarray, replays: list[Search]) -> None:
    """The branches of a search are those of its nodes, and hold their texts."""
    branch = np.asarray(loop.tree.branch)
    state = loop.state
    held = set(branch[branch >= 0].tolist()) | set(ids.tolist())
    assert held == set(np.flatnonzero(state.cache.alive).tolist())
    assert not any(vars(jax.device_get(violations(state.cache))).values())
    for problem, expected in enumerate(replays):
        for node in expected.nodes():
            slot = int(branch[problem, node.number])
            if slot < 0:
                assert node.number == ROOT or node.prior == -np.inf or node.payload.ends
                continue
            tokens, length = branch_tokens(state, pad([slot]))
            text = tokens[0, : length[0]].tolist()
            committed = node.made and node.payload.depth > 0
            assert text == node.payload.path + list(COMMIT if committed else ())


def test_a_kept_tree_goes_on_as_plain_python_does() -> None:
    keys = jax.random.split(jax.random.key(5), LANES)
    loop, ids, replays = searched(keys)
    for problem, expected in enumerate(replays):
        assert_read(jax.device_get(look(loop)), problem, expected)
    assert_held(loop, ids, replays)
    roots = []
    for move in range(2):
        # The most visited child; for the last problem the least, which is not expanded.
        actions = np.asarray(favourite(loop)).tolist()
        assert actions == [choose(expected) for expected in replays]
        actions[-1] = choose(replays[-1], least=True)
        loop = move_root(loop, np.array(actions), jax.random.key(move))
        for expected, action in zip(replays, actions, strict=True):
            expected.reroot(action)
        roots += np.asarray(loop.tree.branch)[:, ROOT].tolist()
        assert_held(loop, np.array([*ids, *roots]), replays)
        for problem, expected in enumerate(replays):
            assert_read(jax.device_get(look(loop)), problem, expected)
        loop = advance(loop)
        for problem, expected in enumerate(replays):
            expected.run()
            found = jax.device_get(look(loop))
            assert_read(found, problem, expected)
            assert found.at_capacity[problem] == expected.at_capacity
        assert_held(loop, np.array([*ids, *roots]), replays)
    state, _ = finish(loop)
    assert set(np.flatnonzero(state.cache.alive)) == {*ids.tolist(), *roots}
    state = jax.jit(engine.free)(state, np.array([*ids, *roots]))
    assert int(np.sum(np.asarray(state.cache.pool.ref_count) == 0)) == CACHE.num_blocks


def choose(expected: Search, least: bool = False) -> int:
    """The move to the most visited child, or to the least visited one."""
    children = expected.root.children
    sign = -1 if least else 1
    chosen = max(children, key=lambda child: (sign * child.visits, -child.number))
    return expected.root.made.index(chosen)


def test_a_child_that_does_not_exist_ends_the_search() -> None:
    loop, ids, _ = searched(jax.random.split(jax.random.key(5), LANES))
    loop = move_root(loop, np.array([-1, CONFIG.num_children, 99, -1]), jax.random.key(0))
    assert not bool(unfinished(loop))
    assert set(np.flatnonzero(loop.state.cache.alive)) == set(ids)
    found: Any = jax.device_get(look(loop))
    assert np.all(found.answers == NO_NODE)
    assert np.all(found.tree.parent == NO_NODE)
    assert np.asarray(favourite(loop)).tolist() == [-1] * LANES
