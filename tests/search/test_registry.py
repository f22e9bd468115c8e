"""The table of searches: what each name runs, whole, part by part, and cut before its end."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import search
from dendrite_jax.engine import GREEDY, State, StopRules
from dendrite_jax.search import NO_NODE, ROOT, RandomValues, SampleThoughts, mean_loglikelihood
from dendrite_jax.search.registry import ALIASES, SEARCHES, Search, Task, build, sizes_of
from engine.programs import bigram, start
from search.programs import CACHE, assert_only_roots_held

pytestmark = pytest.mark.slow

STOP = 0
PROMPTS = [[1], [2, 3, 4], [5, 6], [7, 8, 9, 10, 1]]
SIZES = {
    "best_of_n": {"proposals": 4},
    "beam": {"breadth": 2, "proposals": 4},
    "beam_search": {"width": 2, "tokens": 4},
    "tree_of_thoughts": {"breadth": 2, "proposals": 4},
    "depth_first": {"proposals": 3, "expansions": 4},
    "mcts": {"proposals": 3, "expansions": 4, "simulations": 12},
}
TASK = Task(
    expand=SampleThoughts(3, StopRules.of([STOP]), any_end=True),
    score=mean_loglikelihood,
    depth=3,
    commit=jnp.array([2]),
    hopeless=-2.0,
    stop_tokens=jnp.array([STOP]),
)


@cache
def bound(name: str) -> Search:
    return build(name, TASK, SIZES.get(name, {}))


@cache
def found_by(name: str) -> Any:
    """What the whole search finds, in one call."""
    return run_whole(bound(name).run)


def run_whole(search: Callable[..., tuple[State, Any]]) -> Any:
    """What f(model, state, roots, key) finds."""
    model = bigram()
    state, ids = start(model, PROMPTS, config=CACHE)
    whole = jax.jit(lambda state, ids, key: search(model, state, ids, key))
    state, result = whole(state, ids, jax.random.key(0))
    assert_only_roots_held(state, ids)
    return jax.device_get(result)


@pytest.mark.parametrize("name", ["best_of_n", "beam_search", "depth_first", "mcts"])
def test_the_parts_come_to_what_the_whole_search_finds(name: str) -> None:
    """One search a kind of loop; what is left when it is cut is marked and given back."""
    model, own = bigram(), bound(name)
    functions, pieces = own.functions, own.pieces
    state, ids = start(model, PROMPTS, config=CACHE)
    begin = jax.jit(functions.start, static_argnames="config")
    loop = begin(pieces, state, ids, jax.random.key(0), config=own.config)
    advance, finish = jax.jit(functions.advance), jax.jit(functions.finish)
    look = jax.jit(lambda loop: (functions.read(pieces, loop), functions.unfinished(loop)))
    nodes, unfinished, first = 0, True, None
    while unfinished:
        loop = advance(model, pieces, loop)
        first = loop if first is None else first
        result, unfinished = jax.device_get(look(loop))
        assert np.any(result.cut) == unfinished
        grown = int((result.tree.parent != NO_NODE).sum())
        assert grown > nodes or not unfinished
        nodes = grown
        for problem, frontier in enumerate(result.frontier):
            on = frontier[frontier != NO_NODE]
            assert all(result.tree.depth[problem, node] > 0 for node in on)
    jax.tree.map(np.testing.assert_array_equal, result, found_by(name))
    # A loop that is over stays as it is, its ledger too.
    jax.tree.map(np.testing.assert_array_equal, advance(model, pieces, loop), loop)
    closed, _ = finish(pieces, loop)
    assert_only_roots_held(closed, ids)
    closed, cut = finish(pieces, first)
    assert np.any(cut.cut)
    assert_only_roots_held(closed, ids)


def test_names_stand_for_the_searches_of_the_library() -> None:
    common: dict[str, Any] = {"expand": TASK.expand, "commit": TASK.commit}

    def direct(function: Any, config: Any, **pieces: Any) -> Any:
        return run_whole(partial(function, config=config, **{**common, **pieces}))

    for name, expected in {
        "greedy": direct(
            search.sample,
            search.SampleConfig(n=1, depth=3),
            expand=TASK.expand.replace(sampling=GREEDY),
        ),
        "best_of_n": direct(search.best_of_n, search.BestOfNConfig(n=4, depth=3)),
        "tree_of_thoughts": direct(
            search.tree_of_thoughts, search.TreeOfThoughtsConfig(breadth=2, proposals=4, depth=3)
        ),
    }.items():
        jax.tree.map(np.testing.assert_array_equal, found_by(name), expected)


def test_every_search_of_the_library_is_in_the_table_by_its_name() -> None:
    takes_model = {"beam_search", "depth_first", "mcts"} | {
        name for name in search.levels.__all__ if name[0].islower()
    }
    assert set(SEARCHES) == takes_model
    assert all(callable(getattr(search, name)) for name in SEARCHES)
    for old, new in {
        "best-of-n": "best_of_n",
        "tot-bfs": "tree_of_thoughts",
        "tot-dfs": "depth_first",
    }.items():
        assert ALIASES[old] is SEARCHES[new]


def assert_answers_add_up(found: Any, steps: np.ndarray) -> None:
    """Checks that an answer's value is the sum of those of its steps."""
    parent = found.tree.parent
    assert (found.answers != NO_NODE).any()
    for problem, answer in np.argwhere(found.answers != NO_NODE):
        node, total = found.answers[problem, answer], 0.0
        while node != ROOT:
            total += steps[problem, node]
            node = parent[problem, node]
        assert found.values[problem, answer] == pytest.approx(total, rel=1e-5)


def test_a_beam_goes_by_the_likelihood_of_the_path() -> None:
    found = found_by("beam")
    assert_answers_add_up(found, found.tree.raw_logprob)


def test_the_control_of_a_beam_goes_by_random_values() -> None:
    control = TASK._replace(score=RandomValues(mean_loglikelihood))
    found = run_whole(build("beam", control, SIZES["beam"]).run)
    assert_answers_add_up(found, found.tree.value)
    values = found.tree.value[found.tree.parent != NO_NODE]
    assert np.all((values >= 0) & (values < 1))
    assert len(np.unique(values)) == values.size


@pytest.mark.parametrize("name", [*SEARCHES, *ALIASES])
def test_default_sizes_can_be_built(name: str) -> None:
    built = build(name, TASK, {})
    assert built.config.num_slots >= built.paths + 1
    assert built.path_tokens >= 3
    assert all(size >= 1 for size in sizes_of(name).values())


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("guess", {}, "method is 'guess'; it must be one of greedy, sample"),
        ("greedy", {"breadth": 3}, "breadth is no size of method 'greedy', which takes none"),
        ("mcts", {"breadth": 3}, "which takes proposals, expansions, simulations"),
        ("beam", {"breadth": 0}, "breadth is 0; it must be at least 1"),
        ("beam", {"breadth": 3, "proposals": 8}, "must be a multiple of breadth, 3"),
        ("beam_search", {"depth": 3}, "depth is no size .* takes width, tokens"),
        ("dvts", {"breadth": 3, "proposals": 8}, "must be a multiple of breadth, 3"),
        ("mcts", {"simulations": -1}, "simulations is -1; it must be at least 1"),
        ("depth_first", {"expansions": 0}, "expansions is 0; it must be at least 1"),
        ("best_of_n", {"proposals": 0}, "proposals is 0; it must be at least 1"),
    ],
)
def test_bad_sizes_are_refused(name: str, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, TASK, sizes)
