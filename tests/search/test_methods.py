"""The table of searches: what each name runs, whole and in steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine, search
from dendrite_jax.engine import GREEDY, State, StopRules
from dendrite_jax.search import NO_NODE, ROOT, RandomValues, SampleThoughts, mean_loglikelihood
from dendrite_jax.search.methods import METHODS, Method, Pieces, build, sizes_of
from engine.programs import bigram, start
from search.programs import CACHE, assert_only_roots_held

pytestmark = pytest.mark.slow

STOP = 0
PROMPTS = [[1], [2, 3, 4], [5, 6], [7, 8, 9, 10, 1]]
SIZES = {
    "best-of-n": {"proposals": 4},
    "beam": {"breadth": 2, "proposals": 4},
    "tot-bfs": {"breadth": 2, "proposals": 4},
    "tot-dfs": {"proposals": 3, "expansions": 4},
    "mcts": {"proposals": 3, "expansions": 4, "simulations": 12},
}
PIECES = Pieces(
    expand=SampleThoughts(3, StopRules.of([STOP]), any_end=True),
    score=mean_loglikelihood,
    depth=3,
    commit=jnp.array([2]),
    hopeless=-2.0,
)


@cache
def method(name: str) -> Method:
    return build(name, PIECES, SIZES.get(name, {}))


@cache
def found_by(name: str) -> Any:
    """What the whole search finds, in one call."""
    return run_whole(method(name).search)


def run_whole(search: Callable[..., tuple[State, Any]]) -> Any:
    """What f(model, state, roots, key) finds."""
    model = bigram()
    state, ids = start(model, PROMPTS, config=CACHE)
    whole = jax.jit(lambda state, ids, key: search(model, state, ids, key))
    state, result = whole(state, ids, jax.random.key(0))
    assert_only_roots_held(state, ids)
    return jax.device_get(result)


@pytest.mark.parametrize("name", ["best-of-n", "tot-bfs", "tot-dfs", "mcts"])
def test_the_steps_come_to_what_the_whole_search_finds(name: str) -> None:
    model, steps = bigram(), method(name).steps
    state, ids = start(model, PROMPTS, config=CACHE)
    loop = jax.jit(steps.start)(state, ids, jax.random.key(0))
    advance = jax.jit(steps.advance)
    look = jax.jit(lambda loop: (steps.view(loop), steps.unfinished(loop)))
    nodes, unfinished = 0, True
    while unfinished:
        loop = advance(model, loop)
        view, unfinished = jax.device_get(look(loop))
        grown = int((view.result.tree.parent != NO_NODE).sum())
        assert grown > nodes or not unfinished
        nodes = grown
        for problem, kept in enumerate(view.kept):
            assert all(view.result.tree.depth[problem, node] > 0 for node in kept[kept != NO_NODE])
    jax.tree.map(np.testing.assert_array_equal, view.result, found_by(name))
    closed: State = jax.jit(lambda loop: engine.free(*steps.close(loop)))(loop)
    assert_only_roots_held(closed, ids)


def test_names_stand_for_the_searches_of_the_library() -> None:
    common: dict[str, Any] = {"expand": PIECES.expand, "commit": PIECES.commit}

    def direct(function: Any, config: Any, **pieces: Any) -> Any:
        return run_whole(partial(function, config=config, **{**common, **pieces}))

    for name, expected in {
        "greedy": direct(
            search.sample,
            search.SampleConfig(n=1, depth=3),
            expand=PIECES.expand.replace(sampling=GREEDY),
        ),
        "best-of-n": direct(search.best_of_n, search.BestOfNConfig(n=4, depth=3)),
        "tot-bfs": direct(
            search.tree_of_thoughts, search.TreeOfThoughtsConfig(breadth=2, proposals=4, depth=3)
        ),
    }.items():
        jax.tree.map(np.testing.assert_array_equal, found_by(name), expected)


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
    control = PIECES._replace(score=RandomValues(mean_loglikelihood))
    found = run_whole(build("beam", control, SIZES["beam"]).search)
    assert_answers_add_up(found, found.tree.value)
    values = found.tree.value[found.tree.parent != NO_NODE]
    assert np.all((values >= 0) & (values < 1))
    assert len(np.unique(values)) == values.size


@pytest.mark.parametrize("name", METHODS)
def test_default_sizes_can_be_built(name: str) -> None:
    built = build(name, PIECES, {})
    assert built.config.num_slots >= built.paths + 1
    assert built.thoughts >= 1
    assert all(size >= 1 for size in sizes_of(name).values())


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("guess", {}, "method is 'guess'; it must be one of greedy, sample"),
        ("greedy", {"breadth": 3}, "breadth is no size of method 'greedy', which takes none"),
        ("mcts", {"breadth": 3}, "which takes proposals, expansions, simulations"),
        ("beam", {"breadth": 0}, "breadth is 0; it must be at least 1"),
        ("beam", {"breadth": 3, "proposals": 8}, "must be a multiple of breadth, 3"),
        ("mcts", {"simulations": -1}, "simulations is -1; it must be at least 1"),
        ("tot-dfs", {"expansions": 0}, "expansions is 0; it must be at least 1"),
        ("best-of-n", {"proposals": 0}, "proposals is 0; it must be at least 1"),
    ],
)
def test_bad_sizes_are_refused(name: str, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, PIECES, sizes)
