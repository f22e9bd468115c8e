"""Beam search on bigram models against enumeration and against plain Python."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dendrite_jax.cache.state import OUT_OF_SLOTS
from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import NO_NODE, BeamSearchConfig, SearchResult
from engine.programs import LANES, VOCAB, pad, start
from engine.sampling_oracle import log_softmax
from search.beam.beam_oracle import Beam, Beams
from search.beam.beam_oracle import beam_search as plain_beam_search
from search.positional import PositionalModel, random_table
from search.programs import CACHE, assert_only_roots_held, assert_unchanged, beam_search, occupied

TOLERANCE = 1e-5
"""Of logprobs of size 20 at most: sums of a few terms in float32."""
SMALL_VOCAB = 3
CONFIGS = [
    BeamSearchConfig(width=3, max_new_tokens=6),
    BeamSearchConfig(width=3, max_new_tokens=6, length_penalty=2.0, early_stopping=True),
    BeamSearchConfig(width=1, max_new_tokens=6, length_penalty=-0.5),
    BeamSearchConfig(
        width=4,
        max_new_tokens=5,
        gnmt=True,
        early_stopping="never",
        groups=2,
        diversity_penalty=0.7,
    ),
]
LONG = CONFIGS[0]
LOGITS = random_table(7, VOCAB)
MODEL = PositionalModel(jnp.asarray(LOGITS))
ROOTS = [[1], [2, 0], [3], [4, 5, 6]]


def prompts_of(last: Sequence[int]) -> list[list[int]]:
    """Prompts of different lengths that end with the given tokens."""
    return [[0] * lane + [max(token, 0)] for lane, token in enumerate(last)]


def run(
    logits: np.ndarray, last: Sequence[int], config: BeamSearchConfig, stops: Sequence[int]
) -> SearchResult:
    """Searches after each of `prompts_of(last)`; −1 for an idle problem."""
    model = PositionalModel(jnp.asarray(logits))
    state, ids = start(model, prompts_of(last), config=CACHE)
    roots = np.where(np.array(last) < 0, -1, ids)
    state, found = beam_search(
        model, state, roots, None, config=config, stop_tokens=np.array(stops, np.int32)
    )
    assert_only_roots_held(state, ids)
    return jax.device_get(found)


def expected_beams(
    logits: np.ndarray, prompt: list[int], config: BeamSearchConfig, stops: Collection[int]
) -> Beams:
    logprobs = log_softmax(logits)

    def after(tokens: Sequence[int]) -> np.ndarray:
        context = [*prompt, *tokens]
        return logprobs[len(context) - 1, context[-1]]

    return plain_beam_search(
        after,
        stop_tokens=stops,
        **vars(config),
    )


def path_logprob(logits: np.ndarray, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    """Log-probability of the tokens after the prompt."""
    logprobs, path = log_softmax(logits), [*prompt, *tokens]
    places = range(len(prompt), len(path))
    return sum(logprobs[place - 1, path[place - 1], path[place]] for place in places)


def assert_beams(found: SearchResult, problem: int, expected: list[Beam]) -> None:
    width, limit = found.tokens.shape[1:]
    for rank in range(width):
        if rank >= len(expected):
            assert found.answers[problem, rank] == NO_NODE
            assert np.isneginf(found.values[problem, rank])
            assert found.length[problem, rank] == 0
            assert np.all(found.tokens[problem, rank] == NO_TOKEN)
            continue
        beam = expected[rank]
        assert found.tokens[problem, rank].tolist() == pad(beam.tokens, NO_TOKEN, limit).tolist()
        assert found.length[problem, rank] == len(beam.tokens)
        assert found.tree.value[problem, found.answers[problem, rank]] == pytest.approx(
            beam.logprob, abs=TOLERANCE
        )
        assert found.values[problem, rank] == pytest.approx(
            beam.score, rel=TOLERANCE, abs=TOLERANCE
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        BeamSearchConfig(width=10, max_new_tokens=3, length_penalty=0.7),
        BeamSearchConfig(width=10, max_new_tokens=3, length_penalty=0.0, early_stopping=True),
        BeamSearchConfig(width=10, max_new_tokens=3, length_penalty=0.6, gnmt=True),
    ],
)
@pytest.mark.parametrize("stop", [-1, 2])
def test_a_search_as_wide_as_all_sequences_finds_them_all_in_order(
    config: BeamSearchConfig, stop: int
) -> None:
    logits = random_table(4, VOCAB)
    # Two tokens can follow each, so that no more sequences are possible than there are beams.
    logits = np.where(logits < np.sort(logits, axis=-1)[..., -2:-1], np.float32(-np.inf), logits)
    last = [0, -1, 1, -1]
    found = run(logits, last, config, [stop])
    for problem in (0, 2):
        prompt = prompts_of(last)[problem]
        every = []
        for length in range(1, config.max_new_tokens + 1):
            for tokens in product(range(VOCAB), repeat=length):
                stopped = stop in tokens
                if stop in tokens[:-1] or (length < config.max_new_tokens and not stopped):
                    continue
                total = path_logprob(logits, prompt, tokens)
                if np.isfinite(total):
                    size = (5 + length) / 6 if config.gnmt else length
                    score = total / size**config.length_penalty
                    every.append(Beam(tokens, total, score))
        assert 3 < len(every) <= config.width
        assert_beams(found, problem, sorted(every, key=lambda beam: -beam.score))
    for problem in (1, 3):
        assert_beams(found, problem, [])


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
@given(
    seed=st.integers(0, 10**6),
    holes=st.booleans(),
    last=st.lists(st.integers(0, VOCAB - 1), min_size=LANES, max_size=LANES),
    stops=st.lists(st.integers(-1, VOCAB - 1), min_size=2, max_size=2, unique=True),
)
@settings(max_examples=30)
def test_a_narrow_search_follows_the_rules(
    config: BeamSearchConfig, seed: int, holes: bool, last: list[int], stops: list[int]
) -> None:
    logits = random_table(seed, VOCAB, holes)
    expected = [expected_beams(logits, prompt, config, stops) for prompt in prompts_of(last)]
    assume(all(beams.clear for beams in expected))
    found = run(logits, last, config, stops)
    for problem, beams in enumerate(expected):
        assert_beams(found, problem, beams.beams)


@pytest.mark.slow
def test_a_width_of_one_without_stops_is_greedy() -> None:
    logits = random_table(11, VOCAB)
    found = run(logits, [3, 5, 7, 9], CONFIGS[2], [-1, -1])
    for problem, context in enumerate(prompts_of([3, 5, 7, 9])):
        for new in found.tokens[problem, 0].tolist():
            assert new == np.argmax(logits[len(context) - 1, context[-1]])
            context.append(new)


@pytest.mark.slow
@pytest.mark.parametrize("free_blocks", [1, 3, 6, 10])
def test_problems_without_room_end_with_what_they_have(free_blocks: int) -> None:
    state, ids = occupied(MODEL, ROOTS, free_blocks)
    before = jax.device_get(state.cache)
    state, found = beam_search(MODEL, state, ids, None, config=LONG, stop_tokens=np.array([-1, -1]))
    assert_unchanged(before, state)
    assert state.cache.misuse == 0
    lengths = np.asarray(found.length)
    assert lengths.min() >= 1
    assert lengths.min() < LONG.max_new_tokens
    for problem, beams in enumerate(np.asarray(found.tokens)):
        for rank, tokens in enumerate(beams):
            new = tokens[: lengths[problem, rank]].tolist()
            total = path_logprob(LOGITS, ROOTS[problem], new)
            assert found.tree.value[problem, found.answers[problem, rank]] == pytest.approx(
                total, abs=TOLERANCE
            )


@pytest.mark.slow
def test_problems_without_slots_end_and_say_so() -> None:
    state, ids = occupied(MODEL, ROOTS, free_slots=12)
    others = np.flatnonzero(state.cache.alive)
    state, found = beam_search(MODEL, state, ids, None, config=LONG, stop_tokens=np.array([-1, -1]))
    assert state.cache.misuse == OUT_OF_SLOTS
    assert np.flatnonzero(state.cache.alive).tolist() == others.tolist()
    expected = expected_beams(LOGITS, ROOTS[0], LONG, [])
    assert_beams(jax.device_get(found), 0, expected.beams)


def test_a_root_that_is_not_held_has_no_beams() -> None:
    state, ids = start(MODEL, ROOTS, config=CACHE)
    roots = pad([ids[0], 100, -1, ids[3]])
    state, found = beam_search(
        MODEL, state, roots, None, config=LONG, stop_tokens=np.array([-1, -1])
    )
    found = jax.device_get(found)
    for problem in (1, 2):
        assert_beams(found, problem, [])
    for problem in (0, 3):
        expected = expected_beams(LOGITS, ROOTS[problem], LONG, [])
        assert_beams(found, problem, expected.beams)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width is 0; it must be at least 1"),
        ({"max_new_tokens": -2}, "max_new_tokens is -2; it must be at least 1"),
        ({"groups": 0}, "groups is 0; it must be at least 1"),
        ({"groups": 3}, "width is 4; it must be a multiple of groups, 3"),
        ({"diversity_penalty": -0.1}, "diversity_penalty is -0.1; it must be at least 0"),
        ({"diversity_penalty": math.nan}, "diversity_penalty is nan; it must be at least 0"),
        ({"diversity_penalty": math.inf}, "diversity_penalty is inf; .* and finite"),
        ({"length_penalty": math.nan}, "length_penalty is nan; it must be finite"),
        ({"early_stopping": "soon"}, "early_stopping is 'soon'; it must be True, False or"),
    ],
)
def test_a_bad_config_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeamSearchConfig(**fields)


def test_more_beams_than_the_vocabulary_are_refused() -> None:
    model = PositionalModel(jnp.asarray(random_table(0, SMALL_VOCAB)))
    state, ids = start(model, [[0]], config=CACHE)
    with pytest.raises(ValueError, match="width is 4; it must be at most vocab_size, 3"):
        beam_search(model, state, ids, None, config=BeamSearchConfig(width=4))


def test_more_stop_tokens_than_a_step_can_rank_are_refused() -> None:
    model = PositionalModel(jnp.asarray(random_table(0, SMALL_VOCAB)))
    state, ids = start(model, [[0]], config=CACHE)
    with pytest.raises(ValueError, match="vocab_size is 3; it must be at least 4"):
        beam_search(model, state, ids, None, config=LONG, stop_tokens=np.arange(3))
