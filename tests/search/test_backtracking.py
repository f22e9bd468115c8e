"""Depth-first tree of thoughts against plain Python that replays the draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dendrite_jax.engine import StopRules
from dendrite_jax.search import DepthFirstConfig, SampleThoughts, SearchResult
from engine.generation_oracle import Stops
from engine.programs import LANES, VOCAB, bigram, start
from engine.sampling_oracle import Knobs
from search.judge import Judge
from search.levels.found_trees import assert_found
from search.levels.levels_oracle import Found, Node, Sampler, rank, root
from search.levels.thought_oracle import select
from search.programs import CACHE, assert_only_roots_held, depth_first

CONFIG = DepthFirstConfig(proposals=3, depth=3, expansions=6, threshold=20.0, num_answers=2)
TOKEN = st.integers(0, VOCAB - 1)


def expected_search(
    prompt: Sequence[int], key: np.ndarray, config: DepthFirstConfig, sampler: Sampler
) -> Found | None:
    """Searches one problem; None where float32 could draw another token."""
    found, stack = Found(), [root(prompt, key)]
    for step in range(config.expansions):
        if not stack or len(found.answers) == config.num_answers:
            break
        parent = stack.pop()
        if parent.depth:
            parent = replace(parent, path=[*parent.path, *sampler.commit])
        row: list[Node | None] = []
        for lane in range(config.proposals):
            node = sampler.grow(parent, 1 + step * config.proposals + lane, lane)
            if node is None:
                return None
            row.append(replace(node, chosen_by=node.verdict.value))
        found.nodes += [node for node in row if node]
        good = [node for node in row if node and node.chosen_by >= config.threshold]
        ends, goes_on = select(good, False)
        found.answers = rank(found.answers + ends)[: config.num_answers]
        stack += rank(goes_on)[::-1]
    return found


def run(
    config: DepthFirstConfig,
    prompts: Sequence[Sequence[int]],
    seed: int,
    stops: Sequence[int],
    judge: Judge,
    commit: Sequence[int],
) -> tuple[SearchResult, list[Found | None]]:
    """What the search finds and what it should."""
    state, ids = start(bigram(), prompts, config=CACHE)
    keys = jax.random.split(jax.random.key(seed), LANES)
    state, found = depth_first(
        bigram(),
        state,
        ids,
        keys,
        config=config,
        expand=SampleThoughts(4, StopRules.of(stops)),
        score=judge,
        commit=np.array(commit),
    )
    assert_only_roots_held(state, ids)
    sampler = Sampler(4, Knobs(), Stops((stops[0], stops[1])), judge, commit, config.depth)
    replays = [
        expected_search(prompt, words, config, sampler)
        for prompt, words in zip(prompts, np.asarray(jax.random.key_data(keys)), strict=True)
    ]
    return jax.device_get(found), replays


@pytest.mark.slow
@given(
    prompts=st.lists(st.lists(TOKEN, min_size=1, max_size=5), min_size=LANES, max_size=LANES),
    seed=st.integers(0, 2**31),
    stops=st.lists(TOKEN, min_size=2, max_size=2, unique=True),
    judge=st.builds(
        Judge.of,
        weight=st.integers(1, 96),
        merge=st.sampled_from([2, 3, 1000]),
        reject=st.sampled_from([3, 101]),
        answer=st.integers(-1, VOCAB - 1),
    ),
)
@settings(max_examples=25)
def test_every_problem_is_the_replay_of_its_own_search(
    prompts: list[list[int]], seed: int, stops: list[int], judge: Judge
) -> None:
    found, replays = run(CONFIG, prompts, seed, stops, judge, [4, 1])
    expected = [replay for replay in replays if replay]
    assume(len(expected) == LANES)
    for problem, replay in enumerate(expected):
        assert_found(found, problem, replay)


@pytest.mark.slow
def test_the_search_goes_back_after_a_dead_end() -> None:
    judge = Judge.of(weight=7, merge=1000, reject=101, answer=-1)
    backtracked = 0
    for seed in range(3):
        found, expected = run(CONFIG, [[1], [2, 3], [4], [5, 6]], seed, [0, 8], judge, [4, 1])
        for problem, replay in enumerate(expected):
            if replay is None:
                continue
            assert_found(found, problem, replay)
            depths = [node.depth for node in replay.nodes[:: CONFIG.proposals]]
            backtracked += any(after <= depth for depth, after in pairwise(depths))
    assert backtracked > 2


@pytest.mark.parametrize("field", ["proposals", "depth", "expansions", "num_answers"])
def test_a_bad_size_is_refused(field: str) -> None:
    fields: dict[str, Any] = {field: 0}
    with pytest.raises(ValueError, match=f"{field} is 0; it must be at least 1"):
        DepthFirstConfig(**fields)


def test_a_threshold_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold is NaN"):
        DepthFirstConfig(threshold=math.nan)
