"""Sampling, greedy decoding and best of n against plain Python that replays the draws."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from dendrite_jax import search
from dendrite_jax.engine import Sampling, StopRules
from dendrite_jax.search import BestOfNConfig, SampleConfig, SampleThoughts
from engine.programs import LANES, bigram, start
from search.judge import Judge
from search.levels import levels_oracle
from search.levels.found_trees import assert_found
from search.levels.level_runs import JUDGES, PROMPTS, SEEDS, STOPS, run
from search.levels.levels_oracle import Node, Plan, rank
from search.programs import CACHE, best_of_n, sample

CONFIG = SampleConfig(n=5, depth=2)


def chains(config: SampleConfig) -> Plan:
    return Plan(
        share=levels_oracle.by_subtree(config.n, 1),
        keep=levels_oracle.best_of_subtrees(1),
        record=levels_oracle.ended,
    )


@pytest.mark.slow
@given(prompts=PROMPTS, seed=SEEDS, stops=STOPS, judge=JUDGES)
@settings(max_examples=15)
def test_every_sample_is_the_replay_of_its_own_chain(
    prompts: list[list[int]], seed: int, stops: list[int], judge: Judge
) -> None:
    found, expected = run(sample, CONFIG, chains(CONFIG), prompts, seed, stops, judge)
    for problem, replay in enumerate(expected):
        assert_found(found, problem, replay)


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


@pytest.mark.slow
@pytest.mark.parametrize("how", ["majority", "weighted", "max"])
@given(prompts=PROMPTS, seed=SEEDS, stops=STOPS, judge=JUDGES)
@settings(max_examples=8)
def test_answers_are_elected(
    how: Any, prompts: list[list[int]], seed: int, stops: list[int], judge: Judge
) -> None:
    config = BestOfNConfig(n=8, depth=1, vote=how)
    found, expected = run(best_of_n, config, chains(config), prompts, seed, stops, judge)
    for problem, replay in enumerate(expected):
        answers = elected(replay.answers, how)
        ranked = found.answers[problem, : len(answers)].tolist()
        votes = [vote for _, vote in answers]
        assert found.values[problem, : len(answers)].tolist() == pytest.approx(votes, rel=1e-5)
        assert np.all(found.answers[problem, len(answers) :] == search.NO_NODE)
        assert np.all(np.isneginf(found.values[problem, len(answers) :]))
        if how != "weighted":  # equal sums of exponentials can come out apart by rounding
            assert ranked == [number for number, _ in answers]
        by_number = {node.number: node for node in replay.nodes}
        for rank_, number in enumerate(ranked):
            path = by_number[number].path[len(prompts[problem]) :]
            assert found.tokens[problem, rank_, : found.length[problem, rank_]].tolist() == path


@pytest.mark.slow
def test_greedy_takes_the_likeliest_token_whatever_the_sampling_says() -> None:
    prompts = [[1], [2, 3], [4], [5, 6]]
    keys = jax.random.split(jax.random.key(3), LANES)
    expand = SampleThoughts(6, StopRules.of([0]), Sampling(temperature=9.0), any_end=True)
    state, ids = start(bigram(), prompts, config=CACHE)
    _, found = jax.jit(search.greedy, static_argnames="config")(
        bigram(), state, jnp.asarray(ids), keys, config=SampleConfig(), expand=expand
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
            bigram(),
            state,
            jnp.asarray(ids),
            jax.random.key(0),
            SampleConfig(2),
            expand=SampleThoughts(4),
        )
