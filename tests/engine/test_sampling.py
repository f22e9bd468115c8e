"""Logit processors against plain Python, and what a draw depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dendrite_jax.engine import GREEDY, PLAIN, Sampling, sample
from dendrite_jax.engine.sampling import process_logits
from engine.sampling_oracle import Knobs, as_sampling, chi_square_p, log_softmax, process
from models.tiny_models import uniform

LANES, VOCAB = 4, 12
TOLERANCE = 32 * 2**-24
"""Of the largest logit: a quotient, a product, a logarithm and a sum of twelve terms in float32."""
MARGIN = 1e-5
"""Decisions closer than this, in probability, may fall either way in float32."""

processed = jax.jit(process_logits)
drawn = jax.jit(sample)
LOGIT = st.floats(-8, 8, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
KNOBS = st.builds(
    Knobs,
    repetition_penalty=st.just(1.0) | st.floats(0.5, 3),
    temperature=st.just(1.0) | st.just(0.0) | st.floats(0.25, 4),
    top_k=st.integers(1, VOCAB + 3),
    top_p=st.just(1.0) | st.floats(0.05, 1),
    min_p=st.just(0.0) | st.floats(0, 1),
)


def assert_processed(found: jax.Array, logits: np.ndarray, knobs: Knobs, seen: set[int]) -> None:
    expected = process(logits, knobs, seen)
    assert expected.margin > MARGIN
    values = np.asarray(found)
    np.testing.assert_array_equal(np.isneginf(values), np.isneginf(expected.logits))
    kept = ~np.isneginf(values)
    scale = np.max(np.abs(expected.logits[kept]))
    assert np.all(np.abs(values[kept] - expected.logits[kept]) <= TOLERANCE * scale)


@given(
    logits=st.lists(
        st.lists(LOGIT, min_size=VOCAB, max_size=VOCAB, unique=True), min_size=LANES, max_size=LANES
    ),
    knobs=st.lists(KNOBS, min_size=LANES, max_size=LANES),
    seen=st.lists(st.sets(st.integers(0, VOCAB - 1)), min_size=LANES, max_size=LANES),
)
def test_every_combination_lane_by_lane(
    logits: list[list[float]], knobs: list[Knobs], seen: list[set[int]]
) -> None:
    mask = np.array([[token in lane for token in range(VOCAB)] for lane in seen])
    rows = np.array(logits, np.float32)
    assume(all(process(*lane).margin > MARGIN for lane in zip(rows, knobs, seen, strict=True)))
    found = processed(rows, as_sampling(knobs), mask)
    for lane in range(LANES):
        assert_processed(found[lane], rows[lane], knobs[lane], seen[lane])


FIXED = 8 * uniform(1, "logits", (LANES, VOCAB))
NEUTRAL = Knobs()


@pytest.mark.parametrize(
    "one",
    [
        {"repetition_penalty": 1.7},
        {"temperature": 0.5},
        {"temperature": 0.0},
        {"top_k": 3},
        {"top_k": VOCAB + 50},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"top_k": 5, "top_p": 0.9},
    ],
)
def test_fields_that_are_none_are_off_and_scalars_serve_every_lane(one: dict[str, Any]) -> None:
    seen = {0, 3, 7}
    mask = np.array([[token in seen for token in range(VOCAB)]] * LANES)
    found = processed(FIXED, Sampling(**one), mask)
    for lane in range(LANES):
        assert_processed(found[lane], FIXED[lane], replace(NEUTRAL, **one), seen)


def test_top_k_keeps_the_equals_of_the_kth_too() -> None:
    logits = np.zeros((LANES, VOCAB), np.float32)
    logits[:, 4] = 2.0
    logits[:, [1, 3, 8]] = 1.0
    kept = [[4], [1, 3, 4, 8], [1, 3, 4, 8], list(range(VOCAB))]
    found = processed(logits, Sampling(top_k=jnp.array([1, 2, 4, 5])))
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in found] == kept


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 2e-38, 1e-37, 1e-30])
def test_a_temperature_near_zero_takes_the_likeliest_token(temperature: float) -> None:
    logits = np.array([[1, 3, 2, -5], [9e4, -9e4, 8.9e4, 0], [1e-30, 2e-30, 0, -1], [0, 0, 0, 0]])
    logits[0, 3] = -np.inf
    sampling = Sampling(temperature=jnp.float32(temperature), top_p=0.9, min_p=0.1)
    found = drawn(logits.astype(np.float32), words(range(LANES)), np.arange(LANES), sampling)
    assert found.token[:2].tolist() == [1, 0]
    assert np.isfinite(found.logprob).all()
    assert np.isfinite(found.raw_logprob).all()
    kept = processed(logits.astype(np.float32), sampling)
    assert np.isfinite(kept[3]).all()  # equals stay equal


def test_top_p_keeps_the_likeliest_token_however_small() -> None:
    found = processed(FIXED, Sampling(top_p=1e-6))
    assert np.isfinite(found).sum(axis=1).tolist() == [1] * LANES
    assert np.argmax(found, axis=1).tolist() == np.argmax(FIXED, axis=1).tolist()


def test_a_min_p_of_one_keeps_the_likeliest_and_its_equals() -> None:
    logits = np.zeros((LANES, VOCAB), np.float32)
    logits[:, [2, 5]] = 1.5
    found = processed(logits, Sampling(min_p=1.0))
    assert np.flatnonzero(np.isfinite(found[0])).tolist() == [2, 5]


def test_an_excluded_token_stays_excluded() -> None:
    logits = FIXED.copy()
    logits[:, ::2] = -np.inf
    found = processed(logits, Sampling(temperature=0.7, top_p=1.0, min_p=0.0))
    assert np.isneginf(found)[:, ::2].all()
    assert np.isfinite(found)[:, 1::2].all()


def test_a_penalty_needs_to_know_what_was_seen() -> None:
    with pytest.raises(ValueError, match="repetition_penalty needs `seen`"):
        process_logits(jnp.zeros((1, 3)), Sampling(repetition_penalty=1.2))


def words(seeds: range) -> np.ndarray:
    """Raw words of one key a seed."""
    return np.asarray(jax.random.key_data(jax.vmap(jax.random.key)(np.array(seeds))))


def test_greedy_takes_the_first_of_the_likeliest() -> None:
    logits = FIXED.copy()
    logits[0, [4, 9]] = 20.0
    found = drawn(logits, words(range(LANES)), np.arange(LANES), GREEDY)
    assert found.token.tolist() == np.argmax(logits, axis=1).tolist()
    assert found.token[0] == 4


def test_greedy_and_sampled_lanes_share_a_call() -> None:
    sampling = Sampling(temperature=jnp.array([0.0, 1.0, 0.0, 1.0]))
    logits = np.zeros((LANES, VOCAB), np.float32)
    logits[:, 3] = 0.01
    tokens = np.array(
        [
            drawn(logits, words(range(s, s + LANES)), np.arange(LANES), sampling).token
            for s in range(0, 40, LANES)
        ]
    )
    assert (tokens[:, [0, 2]] == 3).all()
    assert len(set(tokens[:, [1, 3]].ravel().tolist())) > 3


def test_logprobs_are_of_the_raw_and_of_the_processed_distribution() -> None:
    knobs = Knobs(temperature=0.6, top_k=4)
    sampling = Sampling(temperature=0.6, top_k=4)
    found = drawn(FIXED, words(range(LANES)), np.arange(LANES), sampling)
    for lane, token in enumerate(found.token.tolist()):
        raw = log_softmax(FIXED[lane])[token]
        left = log_softmax(process(FIXED[lane], knobs, set()).logits)[token]
        assert found.raw_logprob[lane] == pytest.approx(raw, rel=1e-5, abs=1e-5)
        assert found.logprob[lane] == pytest.approx(left, rel=1e-5, abs=1e-5)


def test_a_draw_depends_on_key_and_position_only() -> None:
    key, position = words(range(LANES)), np.array([5, 1, 9, 2])
    tokens = drawn(FIXED, key, position, PLAIN).token
    order = np.array([2, 0, 3, 1])
    moved = drawn(FIXED[order], key[order], position[order], PLAIN).token
    assert moved.tolist() == tokens[order].tolist()
    alone = drawn(FIXED[[1] * LANES], key[[1] * LANES], position[[1] * LANES], PLAIN).token
    assert alone.tolist() == [int(tokens[1])] * LANES


@pytest.mark.parametrize("varies", ["key", "position"])
@pytest.mark.parametrize(
    "knobs", [Knobs(), Knobs(temperature=1.7, top_k=6, min_p=0.02), Knobs(top_p=0.7)]
)
def test_draws_have_the_processed_distribution(varies: str, knobs: Knobs) -> None:
    draws = 20_000
    row = (FIXED[1] / 3).astype(np.float32)
    many = range(draws) if varies == "key" else range(1)
    key = np.broadcast_to(words(many), (draws, 2))
    position = np.arange(draws) if varies == "position" else np.full(draws, 3)
    sampling = as_sampling([knobs])
    tokens = many_drawn(np.broadcast_to(row, (draws, VOCAB)), key, position, sampling)
    expected = np.exp(log_softmax(process(row, knobs, set()).logits))
    counts = np.bincount(np.asarray(tokens), minlength=VOCAB)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    counts, expected = counts[possible], draws * expected[possible]
    assert chi_square_p(counts, expected, freedom=len(counts) - 1) > 1e-3


@jax.jit
def many_drawn(
    logits: jax.Array, key: jax.Array, position: jax.Array, sampling: Sampling
) -> jax.Array:
    return sample(logits, key, position, sampling, jnp.zeros(logits.shape, bool)).token
