"""Step beams, DVTS and REBASE against plain Python that replays the draws."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_jax import search
from dendrite_jax.engine import Model, State, StopRules
from dendrite_jax.search import (
    DVTSConfig,
    RebaseConfig,
    SampleThoughts,
    StepBeamConfig,
    Thoughts,
)
from dendrite_jax.search.levels.share import counts
from engine.generation_oracle import Stops
from engine.programs import bigram, start
from engine.sampling_oracle import Knobs
from search.judge import Judge
from search.levels import levels_oracle
from search.levels.found_trees import assert_found
from search.levels.level_runs import JUDGES, PROMPTS, SEEDS, STOPS, run
from search.levels.levels_oracle import Found, Node, Plan, Sampler, rank
from search.programs import CACHE, dvts, rebase, step_beam

pytestmark = pytest.mark.slow

STEPS = StepBeamConfig(n=6, beam_width=3, iterations=3, aggregate="prod")
TREES = DVTSConfig(n=6, beam_width=3, iterations=3, aggregate="min", lookahead=2)
BALANCED = RebaseConfig(width=7, depth=3, temperature=30.0, aggregate="sum")


def last_of_subtrees(found: Found, row: list[Node | None]) -> list[Node]:
    """The last row of each subtree that has a usable step in it."""
    width = TREES.beam_width
    answers = found.answers
    for first in range(0, len(row), width):
        usable = rank([node for node in row[first : first + width] if node])
        if usable:
            # A subtree is known by its lane: its answers so far are replaced.
            lanes = range(first, first + width)
            answers = [node for node in answers if (node.number - 1) % len(row) not in lanes]
            answers += usable
    return sorted(answers, key=lambda node: (node.number - 1) % len(row))


PLANS = {
    step_beam: Plan(
        share=levels_oracle.evenly(STEPS.n),
        keep=lambda row: list(levels_oracle.growing(row)[: STEPS.kept]),
        record=lambda found, row: rank(levels_oracle.ended(found, row))[: STEPS.n],
        combine=lambda path, step: path * step,
    ),
    dvts: Plan(
        share=levels_oracle.by_subtree(TREES.kept, TREES.beam_width),
        keep=levels_oracle.best_of_subtrees(TREES.beam_width),
        record=last_of_subtrees,
        combine=min,
        lookahead=TREES.lookahead,
    ),
    rebase: Plan(
        share=levels_oracle.softmax_balanced(BALANCED.width, BALANCED.temperature),
        keep=lambda row: list(levels_oracle.growing(row)),
        record=levels_oracle.ended,
        combine=lambda path, step: path + step,
    ),
}
CONFIGS: dict[Any, Any] = {step_beam: STEPS, dvts: TREES, rebase: BALANCED}
COMMIT = [4]


@pytest.mark.parametrize("compiled", [step_beam, dvts, rebase], ids=["steps", "dvts", "rebase"])
@given(prompts=PROMPTS, seed=SEEDS, stops=STOPS, judge=JUDGES)
@settings(max_examples=20)
def test_every_problem_is_the_replay_of_its_own_search(
    compiled: Any, prompts: list[list[int]], seed: int, stops: list[int], judge: Judge
) -> None:
    config, plan = CONFIGS[compiled], PLANS[compiled]
    found, expected = run(compiled, config, plan, prompts, seed, stops, judge, COMMIT)
    for problem, replay in enumerate(expected):
        assert_found(found, problem, replay)


@given(prompts=PROMPTS, seed=SEEDS, stops=STOPS, judge=JUDGES)
@settings(max_examples=10)
def test_the_last_steps_can_be_made_in_another_way(
    prompts: list[list[int]], seed: int, stops: list[int], judge: Judge
) -> None:
    sampler = Sampler(7, Knobs(), Stops((stops[1], -1)), judge, depth=STEPS.iterations)
    plan = replace(PLANS[step_beam], last=sampler)
    last = SampleThoughts(7, StopRules.of([stops[1], -1]))
    found, expected = run(step_beam, STEPS, plan, prompts, seed, stops, judge, last=last)
    for problem, replay in enumerate(expected):
        assert_found(found, problem, replay)


@given(
    values=st.lists(st.integers(-50, 50), min_size=1, max_size=6),
    width=st.integers(0, 12),
    rejected=st.sets(st.integers(0, 5)),
)
@settings(max_examples=50)
def test_a_width_is_shared_out_by_softmax_and_rounded_up(
    values: list[int], width: int, rejected: set[int]
) -> None:
    row = np.full(6, -np.inf, np.float32)
    kept = [place for place in range(len(values)) if place not in rejected]
    row[kept] = [values[place] / 10 for place in kept]
    found = np.asarray(_counts(row, np.int32(width), np.float32(0.7)))
    assert found.sum() == (width if kept else 0)
    assert np.all(found[[place for place in range(6) if place not in kept]] == 0)
    left = width
    order = sorted(kept, key=lambda place: -row[place])
    for rank_, place in enumerate(order):
        among = sum(math.exp(row[other] / 0.7) for other in order[rank_:])
        part = left * math.exp(row[place] / 0.7) / among
        assert math.ceil(part - 1e-4) <= found[place] <= math.ceil(part + 1e-4)
        left -= found[place]


_counts = jax.jit(counts)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (StepBeamConfig, {"n": 0}, "n is 0; it must be at least 1"),
        (StepBeamConfig, {"beam_width": 0}, "beam_width is 0; it must be at least 1"),
        (StepBeamConfig, {"n": 6}, "n is 6; it must be a multiple of beam_width, 4"),
        (StepBeamConfig, {"lookahead": -1}, "lookahead is -1; it must be at least 0"),
        (StepBeamConfig, {"aggregate": "mean"}, "aggregate is 'mean'; it must be one of last, min"),
        (DVTSConfig, {"n": 6}, "n is 6; it must be a multiple of beam_width, 4"),
        (DVTSConfig, {"merge": True}, "merge is True; it must be False"),
        (RebaseConfig, {"width": 0}, "width is 0; it must be at least 1"),
        (RebaseConfig, {"temperature": 0.0}, "temperature is 0.0; it must be positive and finite"),
    ],
)
def test_a_bad_config_is_refused(config: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_a_search_that_looks_ahead_needs_thoughts_that_can_be_greedy() -> None:
    class Sampler:
        max_tokens = 4

        def __call__(
            self, model: Model, state: State, branches: jax.Array, parents: jax.Array
        ) -> tuple[State, Thoughts]:
            return SampleThoughts(4)(model, state, branches, parents)

    state, ids = start(bigram(), [[1]], config=CACHE)
    run = jax.jit(partial(search.dvts, config=TREES, expand=Sampler()))
    with pytest.raises(ValueError, match="lookahead is 2; it needs expand to be a SampleThoughts"):
        run(bigram(), state, ids, jax.random.key(0))
