"""The search with too few blocks, slots or nodes: sound, and honest about what it found."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_jax.cache.state import OUT_OF_SLOTS
from dendrite_jax.engine import StopRules
from dendrite_jax.search import (
    NO_NODE,
    ROOT,
    MctsConfig,
    SampleThoughts,
    SearchResult,
    Uct,
    path_tokens,
)
from dendrite_jax.search.monte_carlo import even_prior
from engine.generation_oracle import TABLE
from engine.programs import LANES, bigram
from engine.sampling_oracle import log_softmax
from search.judge import Judge, verdict
from search.monte_carlo.programs import mcts, share
from search.programs import CACHE, assert_unchanged, occupied

pytestmark = pytest.mark.slow

CONFIG = MctsConfig(
    num_simulations=16,
    num_children=4,
    num_expansions=6,
    batch=2,
    max_depth=3,
    num_answers=3,
    rule=Uct(0.5),
)
MODEL = bigram()
PROMPTS = [[1], [2, 3], [4, 5, 6], [7]]
STOPS = (0, 8)
JUDGE = Judge.of(weight=7, merge=20, reject=5, answer=3)
NEEDED_SLOTS = LANES * CONFIG.num_slots
LOGPROBS = log_softmax(TABLE)


def run(
    free_blocks: int, free_slots: int, seed: int, config: MctsConfig = CONFIG
) -> tuple[SearchResult, int]:
    """The result, checked against itself, and the misuse flags."""
    state, ids = occupied(MODEL, PROMPTS, free_blocks, free_slots)
    before = jax.device_get(state.cache)
    state, found = mcts(
        MODEL,
        state,
        ids,
        jax.random.split(jax.random.key(seed), LANES),
        config=config,
        expand=SampleThoughts(4, StopRules.of(STOPS)),
        score=JUDGE,
        prior=even_prior,
        worth=share,
        commit=None,
    )
    assert_unchanged(before, state)
    found = jax.device_get(found)
    for problem in range(LANES):
        assert_consistent(found, problem)
    return found, int(state.cache.misuse)


def assert_consistent(found: SearchResult, problem: int) -> None:
    """Every node is what its tokens say; visits add up; the answers are the best there are."""
    tree = found.tree
    parents = tree.parent[problem]
    visits = tree.visits[problem]
    answers: dict[tuple[int, int], tuple[float, int]] = {}
    for number in np.flatnonzero(parents != NO_NODE).tolist():
        thoughts = path_tokens(tree, problem, number)
        path = PROMPTS[problem] + [token for thought in thoughts for token in thought]
        thought, row = thoughts[-1], (problem, number)
        logprob = sum(
            LOGPROBS[path[place - 1], path[place]]
            for place in range(len(path) - len(thought), len(path))
        )
        assert tree.raw_logprob[row] == pytest.approx(logprob, abs=1e-4)
        assert tree.depth[row] == len(thoughts)
        judged = verdict(JUDGE, path, thought)
        complete = bool(thought) and thought[-1] in STOPS
        value = judged.value if complete else -math.inf
        assert tree.value[row] == value
        below = visits[parents == number].sum()
        ends = judged.answer or len(thoughts) == CONFIG.max_depth
        assert tree.terminal[row] == ends
        if ends:
            assert below == 0
            if value > -math.inf:
                family = (int(parents[number]), judged.merge_key)
                best = answers.get(family, (-math.inf, 0))
                answers[family] = max(best, (value, -number))
        elif visits[number] > 1:
            assert below in (0, visits[number] - 1)  # nothing below a dead end
        if value == -math.inf:
            assert visits[number] == 0
    assert visits[ROOT] <= 1 + CONFIG.num_simulations
    assert visits[parents == ROOT].sum() == max(0, visits[ROOT] - 1)
    ranked = [-number for _, number in sorted(answers.values(), reverse=True)]
    expected = ranked[: CONFIG.num_answers]
    assert [node for node in found.answers[problem].tolist() if node != NO_NODE] == expected


@given(
    free_blocks=st.integers(0, 60),
    free_slots=st.integers(0, NEEDED_SLOTS - LANES),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25)
def test_what_was_found_is_consistent_and_everything_comes_back(
    free_blocks: int, free_slots: int, seed: int
) -> None:
    _, misuse = run(free_blocks, free_slots, seed)
    assert misuse in (0, OUT_OF_SLOTS)


def test_enough_slots_raise_no_flag_and_too_few_do() -> None:
    plenty, misuse = run(CACHE.num_blocks, NEEDED_SLOTS - LANES, seed=3)
    assert misuse == 0
    assert not np.any(plenty.at_capacity)
    tight, misuse = run(CACHE.num_blocks, 12, seed=3)
    assert misuse == OUT_OF_SLOTS
    assert tight.at_capacity[-1]
    count = [np.sum(found.tree.parent != NO_NODE) for found in (plenty, tight)]
    assert count[1] < count[0]
    # The last problems go without; the first has the first children it would have.
    np.testing.assert_array_equal(tight.tree.tokens[0, :5], plenty.tree.tokens[0, :5])


def test_without_blocks_nothing_is_answered() -> None:
    found, misuse = run(free_blocks=0, free_slots=CACHE.num_slots, seed=3)
    assert misuse == 0
    assert np.all(found.at_capacity)
    assert np.all(found.answers == NO_NODE)
    assert np.all(np.isneginf(found.tree.value))


def test_a_full_tree_stops_with_what_it_has_and_says_so() -> None:
    small = replace(CONFIG, tree_expansions=2)
    full, misuse = run(CACHE.num_blocks, NEEDED_SLOTS - LANES, seed=3, config=small)
    assert misuse == 0
    plenty, _ = run(CACHE.num_blocks, NEEDED_SLOTS - LANES, seed=3)
    assert full.tree.parent.shape[1] == 1 + 2 * CONFIG.num_children
    assert np.any(full.at_capacity)
    first = full.tree.parent.shape[1] - CONFIG.num_children
    np.testing.assert_array_equal(full.tree.tokens[:, :first], plenty.tree.tokens[:, :first])
