"""Searches driven from the host: compiled once, watched, cut with the best so far in hand."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import cache as kv
from dendrite_jax.engine import State, StopRules
from dendrite_jax.search import NO_NODE, RewardModel, SampleThoughts, SearchResult, ValueTokens
from dendrite_jax.search.registry import Search, Task, build
from dendrite_jax.serving import search_host
from dendrite_jax.serving.search_host import programs, search_on_host
from dendrite_jax.testing import BigramModel
from engine.programs import LANES, bigram, start
from search.programs import CACHE, assert_only_roots_held

pytestmark = pytest.mark.slow

PROMPTS = [[1], [2, 3, 4], [5, 6], [7, 8, 9, 10, 1]]
SIZES = {"proposals": 3, "expansions": 5}
COMPILES: list[str] = []


def _note(event: str, duration_secs: float, **kwargs: str | int) -> None:
    COMPILES.append(event)


jax.monitoring.register_event_duration_secs_listener(_note)


def without_state(loop: Any) -> Any:
    return loop.replace(session=loop.session.replace(state=None))


def search(scale: float) -> Search:
    """Depth first under a reward model of other weights for another scale."""
    reward = RewardModel(BigramModel(scale * bigram().table), ValueTokens.of([1, 2], [1.0, 0.5]))
    task = Task(SampleThoughts(3, StopRules.of([0]), any_end=True), reward, depth=4)
    return build("depth_first", task, SIZES)


@contextmanager
def counting() -> Iterator[list[str]]:
    """Yields a list that in the end holds an entry for each program that XLA was given."""
    before = len(COMPILES)
    found: list[str] = []
    yield found
    found += [name for name in COMPILES[before:] if "backend_compile" in name]


def run(chosen: Search, **options: Any) -> tuple[State, np.ndarray, SearchResult]:
    state, ids = start(bigram(), PROMPTS, config=CACHE)
    roots, key = jnp.asarray(ids), jax.random.key(0)
    state, found = search_on_host(chosen, bigram(), state, roots, key, **options)
    return state, ids, found


@cache
def whole() -> SearchResult:
    """What the search finds; all programs that the tests here need are compiled after it."""
    state, ids, found = run(search(1.0))
    assert_only_roots_held(state, ids)
    assert not np.any(found.cut)
    return found


def test_a_second_search_of_equal_shapes_compiles_nothing_whatever_the_weights() -> None:
    first = whole()
    state, ids = start(bigram(), PROMPTS, config=CACHE)
    roots, key, other = jnp.asarray(ids), jax.random.key(1), search(0.5)
    with counting() as compiled:
        _, found = search_on_host(other, bigram(), state, roots, key)
    assert compiled == []
    used = found.tree.parent != NO_NODE
    assert used.any()
    assert not np.array_equal(found.tree.value, first.tree.value)


def test_weights_are_no_constants_of_a_program() -> None:
    chosen = search(1.0)
    state, ids = start(bigram(), PROMPTS, config=CACHE)
    own, roots = programs(chosen), jnp.asarray(ids)
    traced = own.start.trace(chosen.pieces, state, roots, jax.random.key(0), config=chosen.config)
    loop = traced.out_info
    texts = [
        traced.lower().as_text(),
        own.advance.lower(bigram(), chosen.pieces, loop).as_text(),
        own.finish.lower(chosen.pieces, loop.state, without_state(loop)).as_text(),
    ]
    rows, columns = bigram().table.shape
    table = re.compile(rf"constant.*tensor<{rows}x{columns}xf32>")
    assert not any(table.search(text) for text in texts)
    closed = jax.jit(lambda tokens: chosen.pieces.score.model.table[tokens]).lower(roots)
    assert table.search(closed.as_text())  # what is looked for is there to be found


def test_ctrl_c_gives_the_best_so_far_and_marks_it_as_cut() -> None:
    seen: list[SearchResult] = []

    def watch(result: SearchResult) -> None:
        seen.append(result)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    state, ids, found = run(search(1.0), watch=watch)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(seen) == 2
    assert np.any(found.cut)
    jax.tree.map(np.testing.assert_array_equal, found, seen[-1])
    assert_only_roots_held(state, ids)
    done = ~found.cut
    np.testing.assert_array_equal(found.answers[done], whole().answers[done])


def test_a_second_ctrl_c_interrupts_and_the_state_is_given_back() -> None:
    def watch(result: SearchResult) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    kept: list[State] = []
    with pytest.raises(KeyboardInterrupt):
        run(search(1.0), watch=watch, give_back=kept.append)
    assert int(np.sum(kept[0].cache.alive)) == LANES


def test_a_time_limit_cuts_after_the_part_that_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole()
    clock = itertools.count()
    monkeypatch.setattr(search_host.time, "monotonic", lambda: float(next(clock)))
    seen: list[SearchResult] = []
    # The clock reads 0 at the beginning, then one more before each part.
    state, ids, found = run(search(1.0), watch=seen.append, time_limit=3.5)
    assert len(seen) == 3
    assert np.any(found.cut)
    assert_only_roots_held(state, ids)
    with pytest.raises(ValueError, match="time_limit is 0; it must be above 0 seconds"):
        run(search(1.0), time_limit=0)


def test_roots_that_cannot_be_searched_from_raise_before_anything_runs() -> None:
    state, ids = start(bigram(), [PROMPTS[0], [], *PROMPTS[2:]], config=CACHE)
    with pytest.raises(kv.BranchError, match=r"root 1, branch \d+, is empty"):
        search_on_host(search(1.0), bigram(), state, jnp.asarray(ids), jax.random.key(0))
    state, ids = start(bigram(), PROMPTS, config=CACHE)
    lost = jnp.asarray(ids).at[2].set(-1)
    with pytest.raises(kv.BranchError, match="root 2 is branch -1, which is not held"):
        search_on_host(search(1.0), bigram(), state, lost, jax.random.key(0))
    error = state.cache.error.at[ids[3]].set(2)  # as a prompt leaves it that is too long
    full = state.replace(cache=state.cache.replace(error=error))
    with pytest.raises(kv.CapacityError, match="max_context is 24"):
        search_on_host(search(1.0), bigram(), full, jnp.asarray(ids), jax.random.key(0))
