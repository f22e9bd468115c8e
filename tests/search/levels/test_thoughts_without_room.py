"""Tree of thoughts with too few blocks or slots: sound, and honest about what it found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_jax.cache.state import OUT_OF_SLOTS
from dendrite_jax.engine import NO_TOKEN, StopRules
from dendrite_jax.search import (
    NO_NODE,
    ROOT,
    SampleThoughts,
    SearchResult,
    TreeOfThoughtsConfig,
    path_tokens,
)
from engine.generation_oracle import TABLE
from engine.programs import LANES, bigram
from engine.sampling_oracle import log_softmax
from search.judge import Judge, verdict
from search.levels.thought_oracle import Node, best, select
from search.programs import CACHE, assert_unchanged, occupied, tree_of_thoughts

pytestmark = pytest.mark.slow

CONFIG = TreeOfThoughtsConfig(breadth=2, proposals=6, depth=3)
MODEL = bigram()
PROMPTS = [[1], [2, 3], [4, 5, 6], [7]]
STOPS = (0, 8)
JUDGE = Judge.of(weight=7, merge=20, reject=5, answer=3)
NEEDED_SLOTS = LANES * CONFIG.num_slots


def run(free_blocks: int, free_slots: int, seed: int) -> tuple[SearchResult, int]:
    """The result, checked against itself, and the misuse flags."""
    state, ids = occupied(MODEL, PROMPTS, free_blocks, free_slots)
    before = jax.device_get(state.cache)
    state, found = tree_of_thoughts(
        MODEL,
        state,
        ids,
        jax.random.split(jax.random.key(seed), LANES),
        config=CONFIG,
        expand=SampleThoughts(4, StopRules.of(STOPS)),
        score=JUDGE,
        commit=None,
    )
    assert_unchanged(before, state)
    found = jax.device_get(found)
    for problem in range(LANES):
        assert_consistent(found, problem)
    return found, int(state.cache.misuse)


def recorded(found: SearchResult, problem: int) -> list[Node]:
    """The nodes of a tree, judged anew from the tokens of their whole paths."""
    nodes = []
    for number in np.flatnonzero(found.tree.parent[problem] != NO_NODE).tolist():
        thoughts = path_tokens(found.tree, problem, number)
        path = PROMPTS[problem] + [token for thought in thoughts for token in thought]
        judged = verdict(JUDGE, path, thoughts[-1])
        if not thoughts[-1] or thoughts[-1][-1] not in STOPS:
            judged = judged._replace(value=-math.inf)
        parent = int(found.tree.parent[problem, number])
        nodes.append(
            Node(
                number,
                parent,
                len(thoughts),
                thoughts[-1],
                _logprob(path, thoughts[-1]),
                _logprob(path, thoughts[-1]),
                judged,
                path,
                np.zeros(2),
                chosen_by=judged.value,
            )
        )
    return nodes


def _logprob(path: Sequence[int], thought: Sequence[int]) -> float:
    logprobs = log_softmax(TABLE)
    return sum(
        logprobs[path[place - 1], path[place]]
        for place in range(len(path) - len(thought), len(path))
    )


def assert_consistent(found: SearchResult, problem: int) -> None:
    """Every level grows from the best of the one before; the answers are the best there are."""
    tree, nodes = found.tree, recorded(found, problem)
    kept = {ROOT}
    answers: list[Node] = []
    for level in range(CONFIG.depth):
        row = [node for node in nodes if (node.number - 1) // CONFIG.proposals == level]
        assert {node.parent for node in row} <= kept
        ends, goes_on = select(row, level + 1 == CONFIG.depth)
        answers = best(answers + ends, CONFIG.breadth)
        kept = {node.number for node in best(goes_on, CONFIG.breadth)}
    for node in nodes:
        place = (problem, node.number)
        assert tree.depth[place] == node.depth
        assert tree.value[place] == node.verdict.value
        assert tree.raw_logprob[place] == pytest.approx(node.raw_logprob, abs=1e-4)
        assert tree.logprob[place] == pytest.approx(node.logprob, abs=1e-4)
        unfilled = tree.tokens[place][len(node.tokens) :]
        assert np.all(unfilled == NO_TOKEN)
    found_answers = found.answers[problem]
    assert found_answers[found_answers != NO_NODE].tolist() == [node.number for node in answers]


@given(
    free_blocks=st.integers(0, 40),
    free_slots=st.integers(0, NEEDED_SLOTS) | st.just(NEEDED_SLOTS),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25)
def test_what_was_found_is_consistent_and_everything_comes_back(
    free_blocks: int, free_slots: int, seed: int
) -> None:
    _, misuse = run(free_blocks, free_slots, seed)
    assert misuse in (0, OUT_OF_SLOTS)


def test_enough_slots_raise_no_flag_and_one_too_few_does() -> None:
    blocks = CACHE.num_blocks
    needed = NEEDED_SLOTS - LANES  # the roots hold theirs
    plenty, misuse = run(blocks, needed, seed=3)
    assert misuse == 0
    assert not np.any(plenty.at_capacity)
    tight, misuse = run(blocks, 10, seed=3)
    assert misuse == OUT_OF_SLOTS
    assert tight.at_capacity[-1]
    count = [np.sum(found.tree.parent != NO_NODE) for found in (plenty, tight)]
    assert count[1] < count[0]
    # The last problems go without; the first has all it would have.
    np.testing.assert_array_equal(tight.tree.tokens[0, :7], plenty.tree.tokens[0, :7])


def test_without_blocks_a_thought_is_dropped_and_nothing_is_answered() -> None:
    found, misuse = run(free_blocks=0, free_slots=CACHE.num_slots, seed=3)
    assert misuse == 0
    assert np.all(found.at_capacity)
    assert np.all(found.answers == NO_NODE)
    assert np.all(np.isneginf(found.tree.value))
