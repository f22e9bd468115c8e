"""Running a search by levels and its oracle on the same draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from dendrite_jax.engine import StopRules
from dendrite_jax.search import SampleThoughts, SearchResult
from dendrite_jax.search.levels import LevelsConfig
from engine.generation_oracle import Stops
from engine.programs import LANES, VOCAB, bigram, start
from engine.sampling_oracle import Knobs
from search.judge import Judge
from search.levels.levels_oracle import Found, Plan, Sampler, search
from search.programs import CACHE, assert_only_roots_held

TOKEN = st.integers(0, VOCAB - 1)
PROMPTS = st.lists(st.lists(TOKEN, min_size=1, max_size=5), min_size=LANES, max_size=LANES)
SEEDS = st.integers(0, 2**31)
STOPS = st.lists(TOKEN, min_size=2, max_size=2, unique=True)
JUDGES = st.builds(
    Judge.of,
    weight=st.integers(1, 96),
    merge=st.sampled_from([2, 3, 1000]),
    reject=st.sampled_from([3, 101]),
    answer=st.integers(-1, VOCAB - 1),
)


def run(
    compiled: Callable[..., Any],
    config: LevelsConfig,
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    seed: int,
    stops: Sequence[int],
    judge: Judge,
    commit: Sequence[int] = (),
    **options: Any,
) -> tuple[SearchResult, list[Found]]:
    """What is found, and what should be; draws that float32 could decide otherwise are left out."""
    state, ids = start(bigram(), prompts, config=CACHE)
    keys = jax.random.split(jax.random.key(seed), LANES)
    expand = SampleThoughts(4, StopRules.of(stops))
    state, found = compiled(
        bigram(),
        state,
        ids,
        keys,
        config=config,
        expand=expand,
        score=judge,
        commit=np.array(commit) if commit else None,
        **options,
    )
    assert_only_roots_held(state, ids)
    sampler = Sampler(4, Knobs(), Stops((stops[0], stops[1])), judge, commit, config.depth)
    replays = [
        search(prompt, words, sampler, plan)
        for prompt, words in zip(prompts, np.asarray(jax.random.key_data(keys)), strict=True)
    ]
    expected = [replay for replay in replays if replay]
    assume(len(expected) == LANES)
    return jax.device_get(found), expected
