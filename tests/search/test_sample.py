"""Sampling, greedy decoding and best of n against plain Python that replays the draws."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dendrite_jax import search
from dendrite_jax.engine import Sampling, StopRules
from dendrite_jax.search import BestOfNConfig, SampleConfig, SampleThoughts, SearchResult
from engine.generation_oracle import Stops
from engine.programs import LANES, VOCAB, bigram, start
from engine.sampling_oracle import Knobs
from search import levels_oracle
from search.found_trees import assert_found
from search.judge import Judge
from search.levels_oracle import Found, Node, Plan, Sampler, rank
from search.programs import CACHE, assert_only_roots_held, best_of_n, sample

CONFIG = SampleConfig(n=5, depth=2)
TOKEN = st.integers(0, VOCAB - 1)
PROMPTS = st.lists(st.lists(TOKEN, min_size=1, max_size=5), min_size=LANES, max_size=LANES)
STOPS = st.lists(TOKEN, min_size=2, max_size=2, unique=True)
JUDGES = st.builds(
    Judge.of,
    weight=st.integers(1, 96),
    merge=st.sampled_from([2, 3, 1000]),
    reject=st.sampled_from([3, 101]),
    answer=st.integers(-1, VOCAB - 1),
)


def expected_chains(
    prompt: Sequence[int], key: np.ndarray, config: SampleConfig, sampler: Sampler
) -> Found | None:
    plan = Plan(
        share=levels_oracle.by_subtree(config.n, 1),
        keep=levels_oracle.best_of_subtrees(1),
        record=levels_oracle.ended,
    )
    return levels_oracle.search(prompt, key, sampler, plan)


def run(
    compiled: Any,
    config: SampleConfig,
    prompts: Sequence[Sequence[int]],
    seed: int,
    stops: Sequence[int],
    judge: Judge,
) -> tuple[SearchResult, list[Found]]:
    """What is found, and the chains that should be; unclear draws are assumed away."""
    state, ids = start(bigram(), prompts, config=CACHE)
    keys = jax.random.split(jax.random.key(seed), LANES)
    expand = SampleThoughts(4, StopRules.of(stops))
    state, found = compiled(bigram(), state, ids, keys, config=config, expand=expand, score=judge)
    assert_only_roots_held(state, ids)
    sampler = Sampler(4, Knobs(), Stops((stops[0], stops[1])), judge, depth=config.depth)
    chains = [
        expected_chains(prompt, words, config, sampler)
        for prompt, words in zip(prompts, np.asarray(jax.random.key_data(keys)), strict=True)
    ]
    expected = [chain for chain in chains if chain]
    assume(len(expected) == LANES)
    return jax.device_get(found), expected


@given(prompts=PROMPTS, seed=st.integers(0, 2**31), stops=STOPS, judge=JUDGES)
@settings(max_examples=15)
def test_every_sample_is_the_replay_of_its_own_chain(
    prompts: list[list[int]], seed: int, stops: list[int], judge: Judge
) -> None:
    found, expected = run(sample, CONFIG, prompts, seed, stops, judge)
    for problem, chains in enumerate(expected):
        assert_found(found, problem, chains)


def elected(answers: Sequence[Node], how: str) -> list[tuple[int, float]]:
    """Node and votes of each answer, the best first."""
    groups: dict[int, list[Node]] = defaultdict(list)
    for node in rank(answers):
        groups[node.verdict.merge_key].append(node)
    mass = sum(math.exp(node.total) for node in answers)
    votes = {
        "majority": len,
        "weighted": lambda nodes: sum(math.exp(node.total) for node in nodes) / mass,
        "max": lambda nodes: nodes[0].total,
    }[how]
    ranked = [(nodes[0].number, float(votes(nodes))) for nodes in groups.values()]
    return sorted(ranked, key=lambda answer: -answer[1])


@pytest.mark.parametrize("how", ["majority", "weighted", "max"])
@given(prompts=PROMPTS, seed=st.integers(0, 2**31), stops=STOPS, judge=JUDGES)
@settings(max_examples=8)
def test_answers_are_elected(
    how: Any, prompts: list[list[int]], seed: int, stops: list[int], judge: Judge
) -> None:
    config = BestOfNConfig(n=8, depth=1, vote=how)
    found, expected = run(best_of_n, config, prompts, seed, stops, judge)
    for problem, chains in enumerate(expected):
        answers = elected(chains.answers, how)
        ranked = found.answers[problem, : len(answers)].tolist()
        votes = [vote for _, vote in answers]
        assert found.values[problem, : len(answers)].tolist() == pytest.approx(votes, rel=1e-5)
        assert np.all(found.answers[problem, len(answers) :] == search.NO_NODE)
        assert np.all(np.isneginf(found.values[problem, len(answers) :]))
        if how != "weighted":  # equal sums of exponentials can come out apart by rounding
            assert ranked == [number for number, _ in answers]
        by_number = {node.number: node for node in chains.nodes}
        for rank_, number in enumerate(ranked):
            path = by_number[number].path[len(prompts[problem]) :]
            assert found.tokens[problem, rank_, : found.length[problem, rank_]].tolist() == path


def test_greedy_takes_the_likeliest_token_whatever_the_sampling_says() -> None:
    prompts = [[1], [2, 3], [4], [5, 6]]
    keys = jax.random.split(jax.random.key(3), LANES)
    expand = SampleThoughts(6, StopRules.of([0]), Sampling(temperature=9.0), any_end=True)
    state, ids = start(bigram(), prompts, config=CACHE)
    _, found = jax.jit(search.greedy, static_argnames="config")(
        bigram(), state, ids, keys, config=SampleConfig(), expand=expand
    )
    table = np.asarray(bigram().table)
    for problem, prompt in enumerate(prompts):
        path = list(prompt)
        while len(path) - len(prompt) < 6 and (path == prompt or path[-1] != 0):
            path.append(int(np.argmax(table[path[-1]])))
        assert found.tokens[problem, 0, : found.length[problem, 0]].tolist() == path[len(prompt) :]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 0}, "n is 0; it must be at least 1"),
        ({"depth": -1}, "depth is -1; it must be at least 1"),
        ({"vote": "loudest"}, "vote is 'loudest'; it must be one of majority, weighted, max"),
    ],
)
def test_a_bad_config_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BestOfNConfig(**fields)


def test_several_greedy_samples_are_refused() -> None:
    state, ids = start(bigram(), [[1]], config=CACHE)
    with pytest.raises(ValueError, match="n is 2; it must be 1"):
        search.greedy(
            bigram(), state, ids, jax.random.key(0), SampleConfig(2), expand=SampleThoughts(4)
        )
